// The decode engine: one step of a decoder-only transformer over rows of (token, sequence,
// position), and the loop that chooses the next tokens without coming back.
//
// Read from top to bottom: 1 shapes, 2 threads, 3 lanes, 4 tiles of a product, 5 activations and
// linear layers, 6 keys and values, 7 attention, 8 the step, 9 the choice, 10 generation. C11 with
// the vector extensions of GCC and Clang, libm and POSIX threads; intrinsics of AVX2, VNNI and NEON
// where it matters. Compiled with -DPORTABLE the same file has none: that is the twin which the
// tests compare.
//
// The caller has checked every shape, index and scale, and owns all memory. Nothing is allocated
// here. Letters as in the library: B sequences, H query heads, Hkv key and value heads, D numbers
// of a head, C width of the model, V vocabulary; N rows and K columns of a matrix, M rows of x.

#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdint.h>
#include <string.h>

#if !defined(__wasm__) && !defined(_WIN32)
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#define THREADS
#endif

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && !defined(PORTABLE)
#include <immintrin.h>
#define AVX2
#define BEST "avx2"
#if defined(__AVX512VNNI__) && defined(__AVX512F__)
#define VNNI(sum, w, x) _mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, _mm512_set1_epi32(x))
#define SIGNED(p) ((vwi)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p))))
#define SIDE 2 // panels in one register
#elif defined(__AVXVNNI__)
#define VNNI(sum, w, x) _mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)w, _mm256_set1_epi32(x))
#endif
// In a register for M uses, or GCC loads it for each.
#define HELD(x, M) ({ __typeof__(x) held = x; if (M > 1) __asm__("" : "+v"(held)); held; })
#else
#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD) && !defined(PORTABLE)
#include <arm_neon.h>
#define NEON
#define BEST "neon"
#else
#define BEST "portable"
#endif
#define HELD(x, M) (x)
#endif

#ifdef VNNI // multiplies unsigned by signed bytes: signed codes are raised
#undef BEST
#define BEST "vnni"
enum { RAISED = 128 };
#else
enum { RAISED = 0 };
#endif

#ifndef SIDE
#define SIGNED(p) ((vwi)(widened(p) ^ 128) - 128) // bytes, as many as a register has lanes
#define SIDE 1
#endif

// ---- 1. Shapes --------------------------------------------------------------------------------

// Rows of a panel, and of those in a register; most rows, and most keys, at once.
enum { LANES = 8, WIDE = LANES * SIDE, ROWS = 256, RUN = 128 };
// Bytes of weights that meet one tile of rows after another, and of keys that meet one head after
// another; panels that no two threads share: tiles fall alike in any share.
enum { BLOCK = 1 << 17, NEAR = 1 << 14, UNIT = 6 * SIDE };
enum { ROPE, SINUSOIDAL, NONE };
enum { RELU, GELU, RELU2, SWIGLU };

// A matrix W (N, K) in panels of 8 rows, the last filled with zeros, so that a lane of a vector is
// a row and no sum ever crosses lanes. In FP32 a panel is [K][8] numbers, in codes [words][8]: a
// word of 32 bits holds consecutive columns, 4 signed codes of 8 bits, or 8 unsigned ones of 4
// (column i in bits 8 (i % 4) + 4 (i / 4)). W = (code - zero) * scale, or table[code] * scale. The
// number of panels is even. Where a register holds two panels, they stand side by side, [K][2][8],
// and what is said below to be [panel][group][8] is [panel / 2][group][2][8].
typedef struct {
    const void *data;
    int64_t column, panel;       // of floats: from one to the next, in numbers
    const float *scale;          // [panel][group][8]
    const uint8_t *zero;         // [panel][group][8], signed; NULL: `middle` everywhere
    const float *bias, *table;   // [panel][8], or NULL; 16 levels of a codebook, or NULL
    const uint8_t *exact;        // [K], 1 where activations are not rounded; NULL: nowhere
    int32_t rows, columns, bits;
    int32_t group;               // columns that share a scale: a multiple of 8, or all
    int32_t groups, words, each; // groups and words of a panel, words of a group
    int32_t middle;              // the zero-point of a symmetric scheme
    int32_t act_bits, act_symmetric; // bits the input is rounded to, 0: none; codes around zero
} Matrix;

typedef struct {
    const float *weight, *bias; // bias NULL: RMSNorm, else LayerNorm
    float eps;
} Norm;

typedef struct {
    Matrix q, k, v, out, gate, up, down;
    Norm attention_norm, ffn_norm, q_norm, k_norm; // weight NULL: none
} Block;

typedef struct {
    const Block *blocks;
    const float *table; // position table: (context, D) cos and sin, or (context, C)
    Matrix embedding, head;
    Norm norm;
    int32_t layers, heads, kv_heads, head_dim, width, ffn_dim, vocab, position, ffn, smeared;
    int32_t threads; // at most
    int64_t grain;   // bytes that each of them must have to read, if it is one row that does
} Model;

// Keys and values where the cache keeps them. Token t of a sequence lies in slot t (in a window:
// sinks first, then a ring), slot s in block table[sequence][s / block], and the D numbers of a
// head at block * block_stride + (s % block) * token_stride + head * head_stride bytes from the
// layer's base. 32 bits: floats. 8 bits: codes around 128 times a scale. 4 bits: codes times a
// scale plus a minimum. Both are halves, at the same kind of distance from a base of their own; of
// floats that base is any and those distances are 0.
typedef struct {
    char **k, **v, **k_affine, **v_affine; // [layer]
    const int32_t *table;                  // [sequence][blocks]
    int64_t block_stride, token_stride, head_stride;
    int64_t affine_block, affine_token, affine_head;
    int32_t bits, block, blocks;
    int32_t window, sinks, ring; // window 0: all tokens, keys as rotated; else keys as projected
} Cache;

typedef struct {
    float temperature, top_p, penalty; // 0: greedy, 1: all, 1: none
    int32_t top_k;                     // 0: all
} Sampling;

// Working memory, cut from one arena of the caller's, which is zero at first. Rows are padded to 8
// numbers, and nothing writes to the padding: it stays zero. So they come first: what follows the
// scores moves with the number of tokens.
typedef struct {
    float *x, *h, *q, *k, *v, *a, *f, *g, *rounded; // rows
    int8_t *codes; // of activations,
    float *step;   // their steps,
    int32_t *sums; // and what they sum to over each group, times a zero-point that all share
    float *run, *queries, *mixed, *score; // of attention, for each thread, `own` numbers apart
    float *logits, *hidden;               // of a generation, (B, V) and (B, C)
    int32_t *heap;                        // (V,)
    int64_t own, grain;
    int32_t C, Q, KV, F, K, G, threads;   // padded widths; groups at most
    int32_t broken; // an activation was not finite where it had to be rounded
} Work;

static int64_t up8(int64_t n) { return (n + 7) & ~(int64_t)7; }
static int64_t up16(int64_t n) { return (n + 15) & ~(int64_t)15; }

// Cuts the arena at `base` into the parts of w, for texts of up to `tokens` tokens and a generation
// of B of them. Returns how many numbers it takes.
static int64_t lay(const Model *m, int64_t tokens, int64_t B, float *base, Work *w) {
    int64_t D = m->head_dim, C = up8(m->width), Q = up8(m->heads * D), KV = up8(m->kv_heads * D);
    int64_t F = up8(m->ffn_dim), K = C > F ? C : F, pairs = up16(m->heads / m->kv_heads), n = 0;
    int64_t scores = (pairs > m->heads ? pairs : m->heads) * up8(tokens);
    K = K > Q ? K : Q;
    *w = (Work){.C = C, .Q = Q, .KV = KV, .F = F, .K = K, .G = K / 8};
    w->grain = m->grain, w->threads = m->threads;
    float *codes, *sums, *heap;
    struct { float **at; int64_t rows, size; } parts[] = {
        {&w->x, ROWS, C}, {&w->h, ROWS, C}, {&w->q, ROWS, Q}, {&w->k, ROWS, KV}, {&w->v, ROWS, KV},
        {&w->a, ROWS, Q}, {&w->f, ROWS, F}, {&w->g, ROWS, K}, {&w->rounded, ROWS, K},
        {&codes, ROWS, K / 4}, {&sums, ROWS, K / 8}, {&w->step, ROWS, 1}, {&w->run, RUN, up16(D)},
        {&w->queries, pairs, D}, {&w->mixed, pairs, up16(D)}, {&w->score, 1, scores},
        {&w->logits, B, m->vocab}, {&w->hidden, B, m->width}, {&heap, 1, m->vocab}};
    for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++) {
        *parts[i].at = base + n, n += up8(parts[i].rows * parts[i].size);
        if (parts[i].at == &w->score) w->own = base + n - w->run, n += (w->threads - 1) * w->own;
    }
    w->codes = (int8_t *)codes, w->sums = (int32_t *)sums, w->heap = (int32_t *)heap;
    return n;
}

// How many numbers of 4 bytes the caller's arena must hold.
int64_t engine_arena(const Model *m, int64_t tokens, int64_t B) {
    Work w;
    return lay(m, tokens, B, (float *)64, &w); // addresses are computed, none is used
}

const char *engine_instructions(void) { return BEST; }

// Panels that stand side by side in `Matrix`: whoever packs the weights has to know.
int engine_side(void) { return SIDE; }

// ---- 2. Threads -------------------------------------------------------------------------------

// One of the parts of a job. They are cut where no sum crosses, and computed alike whoever takes
// them: what comes out does not depend on threads.
typedef void Task(const void *job, int part, int parts);

// How many threads share work on so many bytes, each read for one row.
static int threads_for(const Work *w, int64_t bytes) {
    if (w->threads < 2 || bytes < 2 * w->grain) return 1;
    return bytes / w->grain < w->threads ? (int)(bytes / w->grain) : w->threads;
}

#ifdef THREADS
// One pool for the process, and one job in it at a time: who finds it busy works alone. The ticket
// is the job's number, the threads it may have, and the parts left to take. A part is taken by an
// exchange of the whole, so never one of a job that is over; and the caller takes parts too, so it
// waits for those only that a worker is at, never for one to wake.
typedef struct {
    _Atomic uint64_t ticket;  // number << 32 | threads << 24 | parts
    _Atomic int busy, open;   // a caller is in; parts that are not done
    _Atomic char asleep[256]; // workers, from 1 on
    Task *task;
    const void *job;
    int parts, workers, forks;
    pthread_mutex_t lock;
    pthread_cond_t wake;
} Pool;

static Pool pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

enum { AWAKE = 50000 }; // nanoseconds that a worker waits awake: more than between a step's jobs

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void relax(void) {
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
}

static int offered(uint64_t ticket, int who) { // to worker `who`; the caller is 0
    return (ticket & 0xffffff) && who < (int)(ticket >> 24 & 255);
}

static int taken(int who) {
    uint64_t ticket = pool.ticket;
    do
        if (!offered(ticket, who)) return 0;
    while (!atomic_compare_exchange_weak(&pool.ticket, &ticket, ticket - 1));
    pool.task(pool.job, (int)(ticket & 0xffffff) - 1, pool.parts);
    pool.open--;
    return 1;
}

static void *worker(void *which) {
    const int who = (int)(intptr_t)which;
    for (int64_t idle = now();;) {
        if (taken(who)) idle = now();
        relax();
        if (now() - idle < AWAKE) continue;
        pthread_mutex_lock(&pool.lock);
        // Set before the ticket is read once more, as `share` sets the ticket before it reads this:
        // one of the two sees the other, and no wake is lost.
        pool.asleep[who] = 1;
        if (!offered(pool.ticket, who)) pthread_cond_wait(&pool.wake, &pool.lock);
        pool.asleep[who] = 0;
        pthread_mutex_unlock(&pool.lock);
        idle = now();
    }
    return NULL;
}

static void forked(void) { // a child has no workers, and what they held is free
    pool = (Pool){.forks = 1, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
}

static void start(int workers) { // each is tried once: nothing depends on having it
    sigset_t all, before;
    pthread_t thread;
    if (!pool.forks) pool.forks = !pthread_atfork(NULL, NULL, forked);
    sigfillset(&all), pthread_sigmask(SIG_BLOCK, &all, &before); // signals are for other threads
    while (pool.workers < workers)
        if (!pthread_create(&thread, NULL, worker, (void *)(intptr_t)++pool.workers))
            pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

#endif

// Does all parts of a job with up to so many threads, the caller one of them, and waits for it.
static void share(Task *task, const void *job, int parts, int threads) {
#ifdef THREADS
    if (parts > 1 && !atomic_exchange(&pool.busy, 1)) {
        if (pool.workers < threads - 1) start(threads - 1);
        pool.task = task, pool.job = job, pool.parts = parts, pool.open = parts;
        pool.ticket = ((pool.ticket >> 32) + 1) << 32 | (uint64_t)threads << 24 | (uint64_t)parts;
        int asleep = 0;
        for (int who = 1; who < threads; who++) asleep |= pool.asleep[who];
        if (asleep) {
            pthread_mutex_lock(&pool.lock);
            pthread_cond_broadcast(&pool.wake);
            pthread_mutex_unlock(&pool.lock);
        }
        while (taken(0)) continue;
        for (int turns = 0; pool.open; turns++) turns < 1000 ? relax() : (void)sched_yield();
        pool.busy = 0;
        return;
    }
#endif
    for (int part = 0; part < parts; part++) task(job, part, parts);
}

// ---- 3. Lanes ---------------------------------------------------------------------------------

#define INLINE static inline __attribute__((always_inline))
#ifdef __wasm__ // small, for a page: loops stay loops, and rows come by fours or one by one
#define UNROLLED
enum { SMALL = 1 };
#else
#define UNROLLED _Pragma("GCC unroll 16") // arrays of sums become registers
enum { SMALL = 0 };
#endif

// Eight lanes, from any address.
typedef float v8f __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t v8i __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint32_t v8u __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint16_t v8h __attribute__((vector_size(16)));
typedef int16_t v8s __attribute__((vector_size(32)));
typedef int32_t float_bits __attribute__((may_alias));
typedef uint16_t half_bits __attribute__((aligned(1), may_alias));
typedef uint32_t four_bytes __attribute__((aligned(1), may_alias)); // codes, low bits first

INLINE v8f load(const float *p) { return *(const v8f *)p; }

// As many lanes as a register holds.
typedef float vwf __attribute__((vector_size(4 * WIDE)));
typedef int32_t vwi __attribute__((vector_size(4 * WIDE)));

INLINE vwf load_wide(const void *p) { vwf x; return memcpy(&x, p, sizeof x), x; }

// Where the i-th of n vectors of a panel stands, in vectors of 8.
INLINE int64_t place(int64_t panel, int64_t n, int64_t i) {
    return (panel / SIDE * n + i) * SIDE + panel % SIDE;
}

// The nearest whole numbers, ties to even, from low to high; |x| < 2^22.
INLINE v8i nearest(v8f x, int low, int high) {
    const v8f whole = (v8f){0} + 12582912.0f; // 1.5 · 2^23: a sum with it has no fraction left
    v8i n = (v8i)(x + whole) - (v8i)whole, under = n < low, over = n > high;
    return (n & ~under & ~over) | (low & under) | (high & over);
}

// Eight numbers as bytes.
INLINE void narrow(uint8_t *p, v8i x) {
#ifdef AVX2
    const __m256i order = _mm256_set1_epi32(0x0c080400);
    __m256i bytes = _mm256_shuffle_epi8((__m256i)x, order);
    *(four_bytes *)p = _mm256_extract_epi32(bytes, 0);
    *(four_bytes *)(p + 4) = _mm256_extract_epi32(bytes, 4);
#else
    for (int i = 0; i < LANES; i++) p[i] = (uint8_t)x[i];
#endif
}

INLINE void store(float *p, v8f x, int64_t n) {
    if (n >= LANES) *(v8f *)p = x;
    for (int i = 0; n < LANES && i < n; i++) p[i] = x[i];
}

INLINE float total(v8f x) {
    return ((x[0] + x[4]) + (x[1] + x[5])) + ((x[2] + x[6]) + (x[3] + x[7]));
}

// The largest of n numbers, n > 0.
static float highest(const float *x, int n) {
    float most[LANES], high = x[0];
    int i = 0;
    for (int l = 0; l < LANES; l++) most[l] = x[0];
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) most[l] = x[i + l] > most[l] ? x[i + l] : most[l];
    for (; i < n; i++) high = x[i] > high ? x[i] : high;
    for (int l = 0; l < LANES; l++) high = most[l] > high ? most[l] : high;
    return high;
}

// e^x by 2^n · polynomial, |error| < 2e-7 of the result; a loop over it becomes vectors. 0 below
// -75: shares of what is left would be no normal numbers, with which a processor takes its time.
INLINE float exponential(float x) {
    const int none = x < -75.0f;
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f; // rounds to a whole number
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f, p = 1 / 720.0f;
    p = p * r + 1 / 120.0f, p = p * r + 1 / 24.0f, p = p * r + 1 / 6.0f, p = p * r + 0.5f;
    union { int32_t bits; float value; } power = {((int32_t)n + 127) << 23};
    return none ? 0 : (p * r * r + r + 1) * power.value;
}

// erf by Abramowitz and Stegun 7.1.26, |error| < 1.5e-7.
INLINE float error_function(float x) {
    float a = x < 0 ? -x : x, t = 1 / (1 + 0.3275911f * a), p = 1.061405429f;
    p = p * t - 1.453152027f, p = p * t + 1.421413741f, p = p * t - 0.284496736f;
    p = 1 - (p * t + 0.254829592f) * t * exponential(-a * a);
    return x < 0 ? -p : p;
}

// A half from a float, ties to even, and back; the bits of IEEE 754.
static uint16_t half_of(float x) {
    union { float value; uint32_t bits; } u = {x};
    uint32_t sign = u.bits >> 16 & 0x8000, a = u.bits & 0x7fffffff;
    if (a >= 0x47800000) // 65536 and more, and what is no number
        return sign | (a > 0x7f800000 ? 0x7e00 : 0x7c00);
    if (a < 0x38800000) // below the smallest normal half: a whole number of 2^-24
        return sign | (uint16_t)rintf(fabsf(x) * 16777216.0f);
    a += 0xfff + (a >> 13 & 1);
    return sign | (uint16_t)((a - 0x38000000) >> 13);
}

INLINE float float_of(uint16_t h) { // what is not finite becomes 65536 or more
    union { uint32_t bits; float value; } u = {(uint32_t)(h & 0x7fff) << 13};
    return u.value * (h & 0x8000 ? -0x1p112f : 0x1p112f);
}

INLINE v8f floats_of(v8h half) {
#ifdef AVX2
    return (v8f)_mm256_cvtph_ps((__m128i)half);
#else
    v8f x = {0};
    for (int i = 0; i < LANES; i++) x[i] = float_of(half[i]);
    return x;
#endif
}

// ---- 4. Tiles: panels of W times M rows of x --------------------------------------------------

// Rows of activations: floats, or codes with sums and steps; y = … or, with `more`, y += ….
typedef struct {
    const float *x;
    int64_t stride, across; // from row to row, in numbers; in floats from column to column
    const int8_t *codes;
    const int32_t *sums;
    const float *step;
    int64_t groups; // from one row of sums to the next
    int more;
    const char *next; // what to fetch meanwhile: the next block, a share for each tile of rows
} Input;

// y[r P + p] = Σ w[k] · x[r][k] for P panels, a multiple of SIDE; from column to column it is
// `column` numbers in w, `across` in x. About 12 sums grow side by side, since the processor begins
// eight multiply-adds in the time that one takes; 16 registers hold them and their factors.
INLINE void tile_fp32(const float *w, int64_t column, int64_t panel, int64_t K, const float *x,
                      int64_t stride, int64_t across, const char *next, v8f *y, const int M,
                      const int P) {
    const int V = P / SIDE, U = M * V < 12 ? 12 / (M * V) : 1; // columns side by side
    vwf sum[16], part[3];
    UNROLLED for (int i = 0; i < M * V * U; i++) sum[i] = (vwf){0};
    const float *half = x + 4 * stride; // or distances to eight rows would not fit the registers
    __asm__("" : "+r"(half));
    for (; K >= U; K -= U, w += U * column, x += U * across, half += U * across)
        UNROLLED for (int u = 0; u < U; u++) {
            if (next) __builtin_prefetch(next, 0, 2), next += 64;
            UNROLLED for (int v = 0; M == 8 && !next && v < V; v++) // or of the panels to come
                __builtin_prefetch(w + u * column + (P + v * SIDE) * panel, 0, 2);
            UNROLLED for (int v = 0; v < V; v++)
                part[v] = HELD(load_wide(w + u * column + v * SIDE * panel), M);
            UNROLLED for (int r = 0; r < M; r++) {
                const float *row = M == 8 && r >= 4 ? half + (r - 4) * stride : x + r * stride;
                const vwf one = HELD(row[u * across] - (vwf){0}, V);
                UNROLLED for (int v = 0; v < V; v++) sum[(r * V + v) * U + u] += part[v] * one;
            }
        }
    for (; K > 0; K--, w += column, x += across)
        UNROLLED for (int r = 0; r < M; r++)
            UNROLLED for (int v = 0; v < V; v++)
                sum[(r * V + v) * U] += load_wide(w + v * SIDE * panel) * x[r * stride];
    UNROLLED for (int i = 0; i < M * V; i++) {
        UNROLLED for (int u = 1; u < U; u++) sum[i * U] += sum[i * U + u];
        memcpy(y + i * SIDE, sum + i * U, sizeof *sum);
    }
}

// Eight bytes as eight lanes: one instruction where there is one.
INLINE v8i widened(const uint8_t *p) {
    return (v8i){p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]};
}

// table[code] of 16 levels.
INLINE v8f looked_up(const float *table, v8i code) {
#ifdef AVX2 // both halves are asked for, and bit 3 of the code, moved to the sign, chooses
    __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)code);
    __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), (__m256i)code);
    return (v8f)_mm256_blendv_ps(low, high, (__m256)_mm256_slli_epi32((__m256i)code, 28));
#else
    v8f x;
    for (int i = 0; i < LANES; i++) x[i] = table[code[i]];
    return x;
#endif
}

// The j-th column of a word: 8 bits are signed, 4 are not.
INLINE v8i code_of(v8u word, int j, const int bits) {
    if (bits == 8) return (v8i)(word << (24 - 8 * j)) >> 24;
    return (v8i)(word >> (8 * (j % 4) + 4 * (j / 4)) & 15);
}

// Codes times floats: each code becomes a float in its lane, for all M rows.
INLINE void tile_codes(const Matrix *w, int64_t panel, Input in, v8f *y, const int M,
                       const int bits, const int coded) {
    const int columns = 32 / bits, U = M < 3 ? 4 : M < 5 ? 2 : 1;
    const v8u *word = (const v8u *)w->data + place(panel, w->words, 0);
    UNROLLED for (int r = 0; r < M; r++) y[r] = (v8f){0};
    for (int64_t g = 0, i = 0; g < w->groups; g++) {
        const int64_t group = place(panel, w->groups, g);
        v8i zero = (v8i){0} + w->middle;
        if (w->zero) zero = (widened(w->zero + group * LANES) ^ 128) - 128;
        v8f sum[8];
        UNROLLED for (int r = 0; r < M * U; r++) sum[r] = (v8f){0};
        for (int64_t end = i + w->each < w->words ? i + w->each : w->words; i < end; i++)
            for (int j = 0; j < columns; j++) {
                v8i code = code_of(word[i * SIDE], j, bits);
                v8f value = coded ? looked_up(w->table, code)
                                  : __builtin_convertvector(code - zero, v8f);
                UNROLLED for (int r = 0; r < M; r++)
                    sum[r * U + j % U] += value * in.x[r * in.stride + i * columns + j];
            }
        UNROLLED for (int r = 0; r < M; r++)
            UNROLLED for (int u = 0; u < U; u++)
                y[r] += sum[r * U + u] * load(w->scale + group * LANES);
    }
}

#if defined(VNNI) || defined(NEON)
// Four bytes of each lane, of a factor not below 0 for VNNI, times four activations, and the lane.
INLINE vwi plus_products(vwi sum, vwi bytes, uint32_t four) {
#ifdef VNNI
    return (vwi)VNNI(sum, bytes, four);
#else
    union { vwi all; int8x16_t half[2]; } w = {bytes};
    union { v8i all; int32x4_t half[2]; } y = {sum};
    const int8x16_t x = vreinterpretq_s8_u32(vdupq_n_u32(four));
    for (int i = 0; i < 2; i++) y.half[i] = vdotq_s32(y.half[i], w.half[i], x);
    return y.all;
#endif
}
#endif

// dot[r V + v] += Σ code · activation over n words of P = V SIDE panels, for M rows: integers,
// exact.
INLINE void dots_of(const v8u *word, int64_t panel, int64_t n, const int8_t *x, int64_t stride,
                    vwi *dot, const int M, const int P, const int bits) {
#if defined(VNNI) || defined(NEON) // one addition waits for another: up to eight sums take turns
    const int V = P / SIDE; // of 4 bits both halves of a byte have a sum, and groups take turns
    const int U = bits == 4 ? 2 : M * V < 8 ? 8 / (M * V) : 1, W = bits == 8 ? U : 4; // words
    vwi sum[8];
    UNROLLED for (int i = 0; i < M * V * U; i++) sum[i] = (vwi){0};
    for (int64_t some; n > 0 && (some = n < W ? 1 : W); n -= some) {
        UNROLLED for (int u = 0; u < W; u++, word += SIDE, x += 32 / bits) {
            if (u == some) break;
            UNROLLED for (int i = 0; i < M * V * 8 / bits; i++) {
                const int half = i % (8 / bits), r = i * bits / 8 % M, v = i * bits / 8 / M;
                const vwi codes = (vwi)load_wide(word + v * SIDE * panel);
                const vwi bytes = bits == 8       ? codes ^ (int32_t)(0x01010101u * RAISED)
                                  : half * RAISED ? codes & (int32_t)0xf0f0f0f0 // 16 times, below
                                                  : codes >> 4 * half & 0x0f0f0f0f;
                vwi *to = sum + (r * V + v) * U + (u * 8 / bits + half) % U;
                *to = plus_products(*to, bytes, ((const four_bytes *)(x + r * stride))[half]);
            }
        }
    }
    UNROLLED for (int i = 0; i < M * V * U; i++)
        dot[i / U] += bits == 4 && RAISED && i % 2 ? sum[i] >> 4 : sum[i];
#elif defined(AVX2)
    // It multiplies unsigned by signed bytes and adds pairs in 16 bits. Of 8 bits it gets |code|
    // and the activation with the code's sign: a pair is 2 · 128 · 127 at most, which fits.
    const __m256i nibble = _mm256_set1_epi8(15), one = _mm256_set1_epi16(1);
    v8s sum[8]; // of 4 bits: eight pairs of 2 · 15 · 127 at most fit 16 bits
    UNROLLED for (int i = 0; i < M * P; i++) sum[i] = (v8s){0};
    for (; n > 0; n--, word++, x += 32 / bits)
        UNROLLED for (int p = 0; p < P; p++) {
            const __m256i codes = (__m256i)word[p * panel];
            if (M == 1) __builtin_prefetch(word + (P + p) * panel, 0, 2); // of the panels to come
            const __m256i low =
                bits == 8 ? _mm256_abs_epi8(codes) : _mm256_and_si256(codes, nibble);
            const __m256i high = _mm256_and_si256(_mm256_srli_epi16(codes, 4), nibble);
            UNROLLED for (int r = 0; r < M; r++) {
                const four_bytes *four = (const four_bytes *)(x + r * stride);
                __m256i a = _mm256_set1_epi32(four[0]);
                a = _mm256_maddubs_epi16(low, bits == 8 ? _mm256_sign_epi8(a, codes) : a);
                if (bits == 8) { dot[r * P + p] += (v8i)_mm256_madd_epi16(a, one); continue; }
                sum[r * P + p] += (v8s)a;
                sum[r * P + p] += (v8s)_mm256_maddubs_epi16(high, _mm256_set1_epi32(four[1]));
            }
        }
    UNROLLED for (int i = 0; i < M * P; i++)
        if (bits == 4) dot[i] += (v8i)_mm256_madd_epi16((__m256i)sum[i], one);
#else
    for (int k = 0; k < 32 / bits * n; k++)
        for (int i = 0; i < M * P; i++)
            dot[i] += code_of(word[k * bits / 32 + i % P * panel], k % (32 / bits), bits) *
                      x[i / P * stride + k];
#endif
}

// Codes times codes: Σ (w - zero) · x = Σ w · x - zero · Σ x, in integers, group by group, each of
// `each` words or, where that is 0, of as many as the matrix says.
INLINE void tile_integers(const Matrix *w, int64_t panel, Input in, v8f *y, const int M,
                          const int P, const int bits, const int each) {
    const v8u *word = (const v8u *)w->data + place(panel, w->words, 0);
    const int V = P / SIDE;
    vwf sum[16];
    UNROLLED for (int i = 0; i < M * V; i++) sum[i] = (vwf){0};
    for (int64_t g = 0, k = 0; g < w->groups; g++) {
        const int64_t end = k + w->each < w->words || each ? k + (each ? each : w->each) : w->words;
        vwi dot[16];
        UNROLLED for (int i = 0; i < M * V; i++) {
            const int64_t at = place(panel + i % V * SIDE, w->groups, g);
            dot[i] = (vwi){0} - in.sums[i / V * in.groups + g];
            if (w->zero) dot[i] *= SIGNED(w->zero + at * LANES) + (bits == 8 ? RAISED : 0);
        }
        for (int64_t some; k < end; k += some) {
            some = each || bits == 8 || RAISED || end - k < 4 ? end - k : 4;
            const int8_t *x = in.codes + k * (32 / bits);
            dots_of(word + k * SIDE, w->words, some, x, in.stride, dot, M, P, bits);
        }
        UNROLLED for (int i = 0; i < M * V; i++)
            sum[i] += load_wide(w->scale + place(panel + i % V * SIDE, w->groups, g) * LANES) *
                      __builtin_convertvector(dot[i], vwf);
    }
    memcpy(y, sum, M * P * sizeof *y);
}

// ---- 5. Activations and linear layers ---------------------------------------------------------

static float step_of(float span, Work *work) { // as affine.stored_scale, in FP32
    work->broken |= !(span <= 3.4028235e38f);
    return span == 0 || work->broken ? 1 : span < 1.4e-45f ? 1.4e-45f : span;
}

// The largest |x|, infinite where one is no number: a float without its sign, compared as integers.
static float largest(const float *x, int n) {
    union { int32_t bits; float value; } all = {0};
    int32_t most[LANES] = {0};
    for (int i = 0; i < n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            int32_t size = ((const float_bits *)x)[i + l] & 0x7fffffff;
            most[l] = size > most[l] ? size : most[l];
        }
    for (int l = 0; l < LANES; l++) all.bits = most[l] > all.bits ? most[l] : all.bits;
    return all.bits < 0x7f800000 ? all.value : INFINITY;
}

// Rows of x, padded with zeros, to codes around zero, their steps, and their sums over each group.
static void encode(const Matrix *w, const float *x, int64_t stride, int m, Work *work) {
    const int n = up8(w->columns), most = (1 << (w->act_bits - 1)) - 1;
    for (int r = 0; r < m; r++, x += stride) {
        const float step = work->step[r] = step_of(largest(x, n) / most, work);
        for (int g = 0, i = 0; i < n; g++) {
            v8i sum = {0};
            for (int end = i + w->group < w->columns ? i + w->group : n; i < end; i += LANES) {
                v8i code = nearest(load(x + i) / step, -most, most);
                sum += code;
                narrow((uint8_t *)work->codes + r * work->K + i, code);
            }
            int32_t *all = work->sums + r * work->G + g;
            *all = (sum[0] + sum[4]) + (sum[1] + sum[5]) + (sum[2] + sum[6]) + (sum[3] + sum[7]);
            *all *= w->zero ? 1 : w->middle + (w->bits == 8 ? RAISED : 0);
        }
    }
}

// Rows of x to the floats on the grid of their codes: what integers cannot multiply.
static const float *rounded(const Matrix *w, const float *x, int64_t stride, int m, Work *work) {
    const int n = w->columns, levels = (1 << w->act_bits) - 1, half = levels / 2;
    for (int r = 0; r < m; r++, x += stride) {
        float *y = work->rounded + r * work->K, low = 0, high = 0;
        memset(y, 0, work->K * sizeof *y);
        for (int k = 0; k < n; k++)
            if (!w->exact || !w->exact[k]) {
                low = x[k] < low ? x[k] : low, high = x[k] > high ? x[k] : high;
                work->broken |= !(x[k] - x[k] == 0);
            }
        float span = w->act_symmetric ? (high > -low ? high : -low) / half : (high - low) / levels;
        float step = step_of(span, work), zero = w->act_symmetric ? half + 1 : rintf(-low / step);
        zero = zero < 0 ? 0 : zero > levels ? levels : zero;
        for (int k = 0; k < n; k++) {
            float code = rintf(x[k] / step) + zero, least = w->act_symmetric;
            code = code < least ? least : code > levels ? levels : code;
            y[k] = w->exact && w->exact[k] ? x[k] : (code - zero) * step;
        }
    }
    return work->rounded;
}

enum { FP32, ACROSS, CODES8, CODES4, TABLE4, INTEGERS8, INTEGERS4 }; // ACROSS: FP32, x by columns

// How rows meet a matrix: floats with floats, floats with codes, or codes with codes.
static int kind_of(const Matrix *w) {
    if (w->bits == 32) return FP32;
    if (w->table) return TABLE4;
    if (w->act_bits && w->act_symmetric && !w->exact) return w->bits == 8 ? INTEGERS8 : INTEGERS4;
    return w->bits == 8 ? CODES8 : CODES4;
}

// M rows of x with P panels from the p-th on: sums, then steps, bias and what was there.
INLINE void tile(const int kind, const Matrix *w, int64_t p, Input in, float *y, int64_t stride,
                 const int M, const int P) {
    v8f sum[32];
    const int64_t column = kind == FP32 ? WIDE : w->column;
    if (kind <= ACROSS)
        tile_fp32((const float *)w->data + p * w->panel, column, w->panel, w->columns, in.x,
                  in.stride, kind == FP32 ? 1 : in.across, M >= 4 ? in.next : NULL, sum, M, P);
    else if (kind == INTEGERS4 && w->each == 4 && w->words % 4 == 0) // nothing to count
        tile_integers(w, p, in, sum, M, P, 4, 4);
    else if (kind >= INTEGERS8)
        tile_integers(w, p, in, sum, M, P, kind == INTEGERS8 ? 8 : 4, 0);
    else
        tile_codes(w, p, in, sum, M, kind == CODES8 ? 8 : 4, kind == TABLE4);
    for (int j = 0; j < P; j++) {
        const int64_t n = (p + j) * LANES;
        UNROLLED for (int r = 0; r < M; r++) {
            v8f one = sum[r * P + j];
            if (kind >= INTEGERS8) one *= in.step[r];
            if (w->bias) one += load(w->bias + n);
            if (kind <= ACROSS && in.more) one += load(y + r * stride + n);
            store(y + r * stride + n, one, w->rows - n);
        }
    }
}

// M rows of x with panels `first` to `end`: as many at once as registers allow.
INLINE void tiles(const int kind, const Matrix *w, int64_t first, int64_t end, Input in, float *y,
                  int64_t stride, const int M) {
    const int one = kind > ACROSS && kind < INTEGERS8;
    const int few = kind >= INTEGERS8 && M > (kind == INTEGERS8 ? 4 : 2);
    const int S = one ? 1 : SIDE, two = kind == INTEGERS8 || (kind == INTEGERS4 && M > 1);
    const int P = one || few ? S : two ? 2 : M == 4 && kind <= ACROSS ? 3 * S : 2 * S;
    for (; first + P <= end; first += P) {
        tile(kind, w, first, in, y, stride, M, P);
        if (in.next) in.next += 64 * w->columns;
    }
    for (; first < end; first += S) tile(kind, w, first, in, y, stride, M, S);
}

// Panels `first` to `last`, in blocks that the second cache holds for the rows that follow: four at
// a time, or as near to it as makes them equal, and eight where a code costs the most to read. In
// FP32 each tile of rows fetches its share of the next block: reading hides behind arithmetic.
INLINE void product(const int kind, const Matrix *w, Input in, float *y, int64_t stride, int m,
                    int64_t first, const int64_t last) {
    const int wide = kind <= ACROSS ? SIDE == 2 : kind != INTEGERS4;
    const int64_t size = (int64_t)w->columns * w->bits, unit = kind <= ACROSS ? UNIT : 2;
    const int64_t few = kind > ACROSS ? 2 : SIDE == 2 && m >= 8 ? 2 * SIDE : 3 * SIDE; // a tile's
    const int64_t fit = size < BLOCK / unit ? BLOCK / size / unit * unit : few;
    const int64_t block = m <= 4 || (wide && m == 8) ? last - first : fit;
    for (; first < last; first += block)
        for (int r = 0, some; r < m; r += some) {
            const int64_t end = first + block < last ? first + block : last;
            const int left = m - r, parts = (left + 3) / 4;
            float *to = y + r * stride;
            Input from = in;
            from.x += r * in.stride, from.codes += r * in.stride, from.sums += r * in.groups;
            from.step += r;
            some = wide && left >= 8 && !SMALL ? 8 : (left + parts - 1) / parts;
            if (SMALL && some < 4) some = 1;
            if (kind == FP32 && m > 4 && end < last)
                from.next = (const char *)w->data + 4 * w->panel * (end + (end - first) * r / m);
            if (!SMALL && wide && some == 8) tiles(kind, w, first, end, from, to, stride, 8);
            if (some == 4) tiles(kind, w, first, end, from, to, stride, 4);
            if (!SMALL && some == 3) tiles(kind, w, first, end, from, to, stride, 3);
            if (!SMALL && some == 2) tiles(kind, w, first, end, from, to, stride, 2);
            if (some == 1) tiles(kind, w, first, end, from, to, stride, 1);
        }
}

static void product_fp32(const Matrix *w, Input in, float *y, int64_t stride, int m,
                         int64_t first, int64_t last) {
    product(FP32, w, in, y, stride, m, first, last);
}

// `product` of a kind that is known only now: one copy of it for each.
static void multiply(int kind, const Matrix *w, const Input *in, float *y, int64_t stride, int m,
                     int first, int last) {
#define OF(kind) case kind: product(kind, w, *in, y, stride, m, first, last); return
    switch (kind) {
        OF(CODES8); OF(CODES4); OF(TABLE4); OF(INTEGERS8); OF(INTEGERS4);
    default: product_fp32(w, *in, y, stride, m, first, last);
    }
}

typedef struct {
    const Matrix *w;
    const Input *in;
    float *y;
    int64_t stride;
    int kind, m;
} Product;

// A part of the panels, in whole units.
static void multiply_part(const void *job, int part, int parts) {
    const Product *p = job;
    const int panels = up8(p->w->rows) / LANES, units = (panels + UNIT - 1) / UNIT;
    const int first = units * part / parts * UNIT, end = units * (part + 1) / parts * UNIT;
    multiply(p->kind, p->w, p->in, p->y, p->stride, p->m, first, end < panels ? end : panels);
}

// Whether codes of rows of x for one matrix are those for another too.
static int alike(const Matrix *v, const Matrix *w) {
    return v->act_bits == w->act_bits && v->bits == w->bits && v->group == w->group &&
           v->middle == w->middle && !v->zero == !w->zero && kind_of(v) == kind_of(w);
}

// y = W x + b for m <= ROWS rows. Rows of x are padded with zeros, y is written up to N. `before`
// is the matrix that the same rows have just met, or NULL.
static void linear(const Matrix *w, const Matrix *before, const float *x, int64_t from, float *y,
                   int64_t to, int m, Work *work) {
    const int kind = kind_of(w);
    if (kind < INTEGERS8 && w->act_bits) x = rounded(w, x, from, m, work);
    if (kind >= INTEGERS8 && !(before && alike(before, w))) encode(w, x, from, m, work);
    if (w->act_bits) from = work->K;
    const Input in = {x, from, 1, work->codes, work->sums, work->step, work->G, 0};
    const int panels = up8(w->rows) / LANES, units = (panels + UNIT - 1) / UNIT;
    const int threads = threads_for(work, (int64_t)w->rows * w->columns * w->bits / 8 * m);
    if (threads == 1 || units == 1)
        multiply(kind, w, &in, y, to, m, 0, panels);
    else // more parts than threads: who has begun late takes fewer
        share(multiply_part, &(Product){w, &in, y, to, kind, m},
              units < 4 * threads ? units : 4 * threads, threads);
}

// Row n of W, for the embedding: every eighth number of its panel.
static void row_of(const Matrix *w, int64_t n, float *y) {
    const int64_t panel = n / LANES, lane = n % LANES, bits = w->bits, last = 32 / bits - 1;
    const uint32_t *word = (const uint32_t *)w->data + place(panel, w->words, 0) * LANES + lane;
    const float *from = (const float *)w->data + place(panel, w->columns, 0) * LANES + lane;
    for (int k = 0; bits == 32 && k < w->columns; k++) y[k] = from[k * WIDE];
    for (int g = 0, k = 0; g < w->groups; g++) {
        int64_t at = place(panel, w->groups, g) * LANES + lane;
        int zero = w->zero ? (int8_t)w->zero[at] : w->middle;
        for (int end = k + w->group < w->columns ? k + w->group : w->columns; k < end; k++) {
            int code = code_of((v8u){word[k * bits / 32 * WIDE]}, k & last, bits)[0];
            y[k] = (w->table ? w->table[code] : code - zero) * w->scale[at];
        }
    }
}

// Σ (x - mean), or of its squares.
INLINE float moment(const float *x, float mean, int n, const int squares) {
    v8f sum = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        v8f one = load(x + i) - mean;
        sum += squares ? (v8f)(one * one) : one;
    }
    float all = total(sum);
    for (; i < n; i++) all += squares ? (x[i] - mean) * (x[i] - mean) : x[i] - mean;
    return all;
}

static void normalize(const Norm *norm, const float *x, float *y, int n) { // a bias: LayerNorm
    const float mean = norm->bias ? moment(x, 0, n, 0) / n : 0;
    const float scale = 1 / sqrtf(moment(x, mean, n, 1) / n + norm->eps);
    for (int i = 0; i < n; i++)
        y[i] = (x[i] - mean) * scale * norm->weight[i] + (norm->bias ? norm->bias[i] : 0);
}

// f = act(f), or silu(g) · f.
static void activate(int kind, float *restrict f, const float *restrict g, int n) {
    if (kind == RELU || kind == RELU2)
        for (int i = 0; i < n; i++) f[i] = f[i] > 0 ? kind == RELU ? f[i] : f[i] * f[i] : 0;
    else if (kind == GELU)
        for (int i = 0; i < n; i++) f[i] *= 0.5f + 0.5f * error_function(f[i] * 0.70710678f);
    else
        for (int i = 0; i < n; i++) f[i] *= g[i] / (1 + exponential(-g[i]));
}

// ---- 6. Keys and values -----------------------------------------------------------------------

static void rotate(float *x, const float *cosine, const float *sine, float sign, int D) {
    for (int i = 0; i < D / 2; i++) {
        float a = x[i], b = x[i + D / 2], s = sign * sine[i];
        x[i] = a * cosine[i] - b * s, x[i + D / 2] = b * cosine[i] + a * s;
    }
}

// Where a slot of a sequence begins, and its scale.
static int64_t place_of(const Cache *c, int64_t sequence, int64_t slot, int head, int64_t *affine) {
    int64_t block = c->table[sequence * c->blocks + slot / c->block];
    *affine = block * c->affine_block + slot % c->block * c->affine_token + head * c->affine_head;
    return block * c->block_stride + slot % c->block * c->token_stride + head * c->head_stride;
}

static int64_t slot_of(const Cache *c, int64_t token) {
    if (!c->window || token < c->sinks) return token;
    return c->sinks + (token - c->sinks) % c->ring;
}

// Write D numbers of one head, by the rules of the library's caches. 0, or -1 where a scale
// overflows a half.
static int put(const Cache *c, const float *x, char *to, char *affine, int D) {
    const int bits = c->bits, levels = bits == 8 ? 127 : 15, first = bits == 8 ? 128 : 0;
    uint8_t *code = (uint8_t *)to, two[LANES];
    if (bits == 32) return memcpy(to, x, D * sizeof *x), 0;
    float low = bits == 8 ? 0 : x[0], high = low, least = 0, sum = 0;
    for (int i = 0; i < D; i++) low = x[i] < low ? x[i] : low, high = x[i] > high ? x[i] : high;
    for (int i = 0; i < D; i++) sum += x[i] * 0; // 0, or no number
    if (bits == 4) { // the minimum is rounded first, and the scale covers what is left
        const uint16_t half = half_of(low < -65504 ? -65504 : low > 65504 ? 65504 : low);
        memcpy(affine + 2, &half, 2), least = float_of(half);
    }
    const float span = (bits == 4 ? high - least : high > -low ? high : -low) / levels;
    const uint16_t half = half_of(span <= 0 ? 1 : span < 0x1p-24f ? 0x1p-24f : span);
    const float scale = float_of(half);
    memcpy(affine, &half, 2);
    if (!(scale <= 65504 && sum == 0)) return -1;
    for (int i = 0; i < D; i += LANES) {
        uint8_t *whole = bits == 8 && i + LANES <= D ? code + i : two; // x goes on behind D
        narrow(whole, nearest((load(x + i) - least) / scale, bits == 8 ? -127 : 0, levels) + first);
        for (int j = 0; whole == two && j < LANES && i + j < D; j += bits == 8 ? 1 : 2)
            code[(i + j) * bits / 8] = two[j] | (bits == 4 && i + j + 1 < D ? two[j + 1] << 4 : 0);
    }
    return 0;
}

// Eight numbers of a row from the i-th on: floats, or codes without their scale and minimum.
INLINE v8f numbers(const char *row, int i, const int bits) {
    if (bits == 32) return load((const float *)row + i);
    if (bits == 8) return __builtin_convertvector(widened((const uint8_t *)row + i), v8f);
    v8u word = (v8u){0} + *(const four_bytes *)(row + i / 2);
    return __builtin_convertvector((v8i)(word >> (v8u){0, 4, 8, 12, 16, 20, 24, 28} & 15), v8f);
}

// Scales of eight rows of codes, `next` bytes apart, and what is added to codes times scale.
INLINE v8f scales_of(const char *affine, int64_t next, v8f *least, const int bits) {
    v8h half, low = {0};
    if (next == sizeof half[0])
        memcpy(&half, affine, sizeof half);
    else
        for (int j = 0; j < LANES; j++) {
            half[j] = *(const half_bits *)(affine + j * next);
            if (bits == 4) low[j] = *(const half_bits *)(affine + j * next + 2);
        }
    const v8f scale = floats_of(half);
    *least = bits == 4 ? floats_of(low) : (v8f)(scale * -128.0f);
    return scale;
}

// n rows of D numbers as floats, in rows of up16(D).
static void decode(const Cache *c, const char *from, const char *affine, int n, int D, float *y) {
    const int bits = c->bits;
    for (int t = 0; t < n; t++, from += c->token_stride, affine += c->affine_token, y += up16(D)) {
        v8f least = {0}, scale = {1};
        int i = 0;
        if (bits != 32) scale = scales_of(affine, 0, &least, bits);
        for (; i + LANES <= D; i += LANES)
            store(y + i, numbers(from, i, bits) * scale[0] + least[0], LANES);
        for (; i < D && bits == 32; i++) y[i] = ((const float *)from)[i];
        for (; i < D; i++) {
            int code = (uint8_t)from[i * bits / 8] >> (bits == 4 ? 4 * (i % 2) : 0);
            y[i] = (code & ((1 << bits) - 1)) * scale[0] + least[0];
        }
    }
}

// ---- 7. Attention -----------------------------------------------------------------------------

// What the query at `position` sees in one layer: sinks, then the rest from `first` on.
typedef struct {
    const Model *m;
    const Cache *c;
    int64_t sequence, position, sinks, first, count;
    float *buffer; // (RUN, up16(D))
    int layer;
} Sight;

static Sight sight_of(const Model *m, const Cache *c, int layer, int64_t sequence,
                      int64_t position, float *buffer) {
    Sight s = {m, c, sequence, position, 0, 0, position + 1, buffer, layer};
    if (c->window) {
        s.sinks = c->sinks < position + 1 ? c->sinks : position + 1;
        s.first = position + 1 - c->window > c->sinks ? position + 1 - c->window : c->sinks;
        s.first = s.first < position + 1 ? s.first : position + 1;
        s.count = s.sinks + position + 1 - s.first;
    }
    return s;
}

// Rows of a head that lie one behind the other, `stride` bytes apart.
typedef struct {
    const char *at, *affine;
    int64_t stride, next, n; // `next`: from one scale to the next
    int bits;
} Run;

enum { KEYS = 1, RAW = 2, ONE = 4 }; // ONE: no other head looks at them next

// n keys in rows of up16(D), behind the one before them, take every second pair from the row
// before, turned by the cosines and sines of one place more, if there are any.
static void smear(float *y, int64_t n, int D, const float *turn) {
    const int half = D / 2;
    for (float *row = y + n * up16(D); row > y; row -= up16(D))
        for (int i = 1; i < half; i += 2) {
            const float *from = row - up16(D), a = from[i], b = from[i + half];
            const float cosine = turn ? turn[i] : 1, sine = turn ? turn[i + half] : 0;
            row[i] = a * cosine - b * sine, row[i + half] = b * cosine + a * sine;
        }
}

// Up to RUN seen tokens from the i-th on: where they are or, moved to the buffer, as floats in rows
// of up16(D). Keys in a window move, to be rotated to their places, smeared ones, to be mixed, and,
// unless RAW ones will do, codes and numbers that do not fill 16 lanes.
static Run run_of(const Sight *s, int head, int64_t i, int how) {
    const Cache *c = s->c;
    const int D = s->m->head_dim, turn = how & KEYS && c->window && s->m->position == ROPE;
    const int mixed = how & KEYS && s->m->smeared;
    float *buffer = s->buffer + (mixed ? up16(D) : 0);
    const int32_t *table = c->table + s->sequence * c->blocks;
    int64_t token = i < s->sinks ? i : s->first + i - s->sinks, slot = slot_of(c, token), affine;
    int64_t n = (i < s->sinks ? s->sinks : s->count) - i, b = slot / c->block;
    int64_t left = c->block - slot % c->block; // and blocks that follow in memory as well
    int64_t together = c->block_stride == c->block * c->token_stride ? c->blocks - 1 : 0;
    const int64_t near = how & ONE ? RUN : NEAR / c->token_stride;
    const int64_t most = near < 16 ? 16 : near < RUN - mixed ? near : RUN - mixed;
    for (; left < most && b < together && table[b + 1] == table[b] + 1; b++) left += c->block;
    n = n < left ? n : left, n = n < most ? n : most;
    Run run = {NULL, NULL, c->token_stride, c->affine_token, n, c->bits};
    run.at = (how & KEYS ? c->k : c->v)[s->layer] + place_of(c, s->sequence, slot, head, &affine);
    run.affine = (how & KEYS ? c->k_affine : c->v_affine)[s->layer] + affine;
    if (!turn && !mixed && (how & RAW || (c->bits == 32 && D % 16 == 0))) return run;
    decode(c, run.at, run.affine, n, D, buffer);
    if (mixed) { // there is no window: every key but the first has one before it
        const float *one = s->count > 1 && s->m->position == ROPE ? s->m->table + D : NULL;
        int64_t at = token ? place_of(c, s->sequence, token - 1, head, &affine) : 0;
        memset(s->buffer, 0, up16(D) * sizeof(float));
        if (token) decode(c, c->k[s->layer] + at, c->k_affine[s->layer] + affine, 1, D, s->buffer);
        smear(s->buffer, n, D, one);
    }
    for (int t = 0; turn && t < n; t++) { // the query is at 0, sinks as far as the window is long
        int64_t far = c->sinks + c->window - 1;
        far = (s->position < far ? s->position : far) - (token + t);
        const float *row = s->m->table + (i < s->sinks ? far : s->position - token - t) * D;
        rotate(buffer + t * up16(D), row, row + D / 2, -1, D);
    }
    return (Run){(char *)buffer, NULL, up16(D) * sizeof(float), 0, n, 32};
}

// What lies a few rows on is fetched in time where heads lie side by side: the processor does not
// guess strides as long.
INLINE void fetch(const char *row, int64_t stride, const int rows, const int size) {
    row += LANES * stride;
    UNROLLED for (int j = 0; j < rows; j++, row += stride)
        UNROLLED for (int b = 0; b < size; b += 64) __builtin_prefetch(row + b);
}

// scores[t] = q · k[t] for the keys of a run; D is a multiple of `wide` vectors.
INLINE void dots(Run k, const float *q, int D, float *scores, const int wide, const int bits) {
    float all = 0;
    v8f least, one;
    int64_t t = 0;
    for (int d = 0; bits != 32 && d < D; d++) all += q[d];
#ifdef AVX2
    for (; t + LANES <= k.n; t += LANES) { // eight keys, then their sums side by side
        __m256 s[LANES] = {0};
        for (int d = 0; d < D; d += wide * LANES) {
            const char *at = k.at + t * k.stride + d * bits / 8;
            if (k.stride > D * bits / 8) fetch(at, k.stride, LANES, wide * bits);
            UNROLLED for (int j = 0; j < LANES; j++, at += k.stride)
                UNROLLED for (int i = 0; i < wide * LANES; i += LANES)
                    s[j] += (__m256)(load(q + d + i) * numbers(at, i, bits));
        }
        __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(s[0], s[1]), _mm256_hadd_ps(s[2], s[3]));
        __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(s[4], s[5]), _mm256_hadd_ps(s[6], s[7]));
        one = (v8f)_mm256_permute2f128_ps(a, b, 0x20) + (v8f)_mm256_permute2f128_ps(a, b, 0x31);
        if (bits != 32)
            one *= scales_of(k.affine + t * k.next, k.next, &least, bits), one += least * all;
        store(scores + t, one, LANES);
    }
#endif
    for (; t < k.n; t++) {
        v8f sum = {0};
        for (int d = 0; d < D; d += LANES)
            sum += load(q + d) * numbers(k.at + t * k.stride, d, bits);
        scores[t] = total(sum);
        if (bits != 32) {
            one = scales_of(k.affine + t * k.next, 0, &least, bits);
            scores[t] = scores[t] * one[0] + all * least[0];
        }
    }
}

// y = Σ p[t] · v[t] + rest for `wide` vectors of the values of a run, plus y if there is more.
INLINE void weigh(Run v, const float *p, int d, int D, float *y, float rest, int more,
                  const int bits, const int wide) {
    v8f sum[8];
    int64_t t = 0;
    const char *at = v.at + d * bits / 8;
    UNROLLED for (int i = 0; i < 2 * wide; i++) sum[i] = (v8f){0};
    for (; t + 4 <= v.n; t += 4) {
        if (v.stride > D * bits / 8) fetch(at, v.stride, 4, wide * bits);
        UNROLLED for (int u = 0; u < 4; u++, at += v.stride)
            UNROLLED for (int j = 0; j < wide; j++)
                sum[u % 2 * wide + j] += numbers(at, j * LANES, bits) * p[t + u];
    }
    for (; t < v.n; t++, at += v.stride)
        UNROLLED for (int j = 0; j < wide; j++)
            sum[j] += numbers(at, j * LANES, bits) * p[t];
    UNROLLED for (int j = 0; j < wide; j++)
        store(y + d + j * LANES,
              sum[j] + sum[wide + j] + rest + (more ? load(y + d + j * LANES) : (v8f){0}), LANES);
}

// The same for all D numbers; p becomes p times scale.
INLINE void mix(Run v, float *p, int D, float *y, int more, const int bits) {
    v8f rest = {0}, least;
    int d = 0;
    for (int64_t t = 0, some; bits != 32 && t < v.n; t += some) {
        some = v.n - t < LANES ? 1 : LANES;
        v8f scale = scales_of(v.affine + t * v.next, some == 1 ? 0 : v.next, &least, bits);
        v8f one = some == 1 ? (v8f){p[t]} : *(v8f *)(p + t);
        rest += least * one;
        store(p + t, load(p + t) * scale, some);
    }
    for (; d + 4 * LANES <= D; d += 4 * LANES) weigh(v, p, d, D, y, total(rest), more, bits, 4);
    for (; d < D; d += LANES) weigh(v, p, d, D, y, total(rest), more, bits, 1);
}

// The softmax of n scores times `scale`, in place; there is room up to a multiple of 8, whose rest
// becomes 0.
static void soften(float *s, int n, float scale) {
    const int whole = up8(n);
    const float high = highest(s, n);
    v8f sum = {0};
    for (int i = n; i < whole; i++) s[i] = -INFINITY;
    for (int i = 0; i < whole; i++) s[i] = exponential((s[i] - high) * scale);
    for (int i = 0; i < whole; i += LANES) sum += load(s + i);
    for (int i = 0; i < whole; i += LANES) store(s + i, load(s + i) / total(sum), LANES);
}

// The same of queries side by side, s (tokens, width), each in a lane.
static void soften_lanes(float *s, int64_t tokens, int64_t width, float scale) {
    for (float *column = s; column < s + width; column += WIDE) {
        float most[WIDE], sum[WIDE] = {0};
        memcpy(most, column, sizeof most);
        for (float *one = column; one < s + tokens * width; one += width)
            for (int l = 0; l < WIDE; l++) most[l] = one[l] > most[l] ? one[l] : most[l];
        for (float *one = column; one < s + tokens * width; one += width)
            for (int l = 0; l < WIDE; l++) {
                one[l] = exponential((one[l] - most[l]) * scale);
                sum[l] += one[l];
            }
        for (float *one = column; one < s + tokens * width; one += width)
            for (int l = 0; l < WIDE; l++) one[l] /= sum[l];
    }
}

#define BY_BITS(bits, f, ...)                                                                      \
    ((bits) == 32 ? f(__VA_ARGS__, 32) : (bits) == 8 ? f(__VA_ARGS__, 8) : f(__VA_ARGS__, 4))

// So many rows of a sequence, from the `row`-th of a step on, which look at one layer.
typedef struct {
    const Model *m;
    const Cache *c;
    const int32_t *sequence, *position;
    const Work *w;
    int layer, row, rows;
} Look;

// a = softmax(q Kᵀ / √D) V for one row, and heads `first` to `end`: those of a group read each key
// once.
static void attend(const Look *l, int row, int first, int end, const Work *w) {
    const int D = l->m->head_dim, group = l->m->heads / l->m->kv_heads;
    const Sight s = sight_of(l->m, l->c, l->layer, l->sequence[row], l->position[row], w->run);
    const int64_t room = up8(s.count);
    const float *q = w->q + row * w->Q;
    float *y = w->a + row * w->Q;
    Run run = {0};
    for (int64_t i = 0; i < s.count; i += run.n)
        for (int h = first; h < end; h++) {
            if (h % group == 0) run = run_of(&s, h / group, i, KEYS | RAW);
            float *score = w->score + h * room + i;
            if (D % (4 * LANES) == 0)
                BY_BITS(run.bits, dots, run, q + h * D, D, score, 4);
            else
                BY_BITS(run.bits, dots, run, q + h * D, D, score, 1);
        }
    for (int h = first; h < end; h++) soften(w->score + h * room, s.count, 1 / sqrtf(D));
    for (int64_t i = 0; i < s.count; i += run.n)
        for (int h = first; h < end; h++) {
            if (h % group == 0) run = run_of(&s, h / group, i, RAW);
            BY_BITS(run.bits, mix, run, w->score + h * room + i, D, y + h * D, i > 0);
        }
}

// The same for all rows: the queries of a head's keys stand side by side in lanes, and keys and
// values are read once for all of them.
static void attend_many(const Look *l, int first, int end, const Work *w) {
    const int D = l->m->head_dim, group = l->m->heads / l->m->kv_heads, pairs = l->rows * group;
    const int64_t width = up16(pairs), position = l->position[l->row];
    const int64_t last = position + l->rows - 1;
    const Sight s = sight_of(l->m, l->c, l->layer, l->sequence[l->row], last, w->run);
    Matrix queries = {.data = w->queries, .column = WIDE, .panel = D * LANES, .bits = 32};
    queries.rows = width, queries.columns = D;
    Run run = {0};
    for (int h = first / group; h < end / group; h++) {
        const float *q = w->q + l->row * w->Q + h * group * D;
        float *y = w->a + l->row * w->Q + h * group * D;
        for (int j = 0; j < pairs; j++)
            for (int d = 0; d < D; d++)
                w->queries[(j / WIDE * D + d) * WIDE + j % WIDE] =
                    q[j / group * w->Q + j % group * D + d];
        for (int64_t i = 0; i < s.count; i += run.n) {
            run = run_of(&s, h, i, l->c->bits == 32 ? KEYS | RAW | ONE : KEYS | ONE);
            Input keys = {.x = (const float *)run.at, .stride = run.stride / sizeof(float)};
            product_fp32(&queries, keys, w->score + i * width, width, run.n, 0, width / LANES);
        }
        for (int j = 0; j < pairs; j++)
            for (int64_t t = position + j / group + 1; t < s.count; t++)
                w->score[t * width + j] = -INFINITY;
        soften_lanes(w->score, s.count, width, 1 / sqrtf(D));
        for (int64_t i = 0; i < s.count; i += run.n) {
            run = run_of(&s, h, i, ONE);
            Matrix v = {.data = run.at, .panel = LANES, .rows = D, .columns = run.n, .bits = 32};
            v.column = run.stride / sizeof(float);
            Input in = {.x = w->score + i * width, .stride = 1, .across = width, .more = i > 0};
            product(ACROSS, &v, in, w->mixed, up16(D), pairs, 0, up8(D) / LANES);
        }
        for (int j = 0; j < pairs; j++)
            for (int d = 0; d < D; d++)
                y[j / group * w->Q + j % group * D + d] = w->mixed[j * up16(D) + d];
    }
}

// A part of the heads.
static void look(const void *job, int part, int parts) {
    const Look *l = job;
    const int kv_heads = l->m->kv_heads, group = l->m->heads / kv_heads;
    const int first = kv_heads * part / parts * group, end = kv_heads * (part + 1) / parts * group;
    Work w = *l->w;
    w.run += part * w.own, w.queries += part * w.own;
    w.mixed += part * w.own, w.score += part * w.own;
    if (l->rows * group >= LANES || l->m->head_dim % LANES)
        attend_many(l, first, end, &w);
    else
        for (int i = 0; i < l->rows; i++) attend(l, l->row + i, first, end, &w);
}

// ---- 8. The step ------------------------------------------------------------------------------

enum { OK = 0, NOT_FINITE = -1, SCALE_OVERFLOW = -2 };

// A head's query or key: normed, and rotated to its place.
static void prepare(const Norm *norm, const float *turn, float *x, int D) {
    if (norm->weight) normalize(norm, x, x, D);
    if (turn) rotate(x, turn, turn + D / 2, 1, D);
}

// The residual block: x += attention(norm(x)); x += ffn(norm(x)).
static int residual(const Model *m, const Cache *c, int layer, const int32_t *sequence,
                    const int32_t *position, int rows, Work *w) {
    const Block *b = m->blocks + layer;
    const int D = m->head_dim, C = m->width, group = m->heads / m->kv_heads;
    const int side = group < 16 ? 16 / group : 1; // rows that look side by side
    for (int r = 0; r < rows; r++)
        normalize(&b->attention_norm, w->x + r * w->C, w->h + r * w->C, C);
    linear(&b->q, NULL, w->h, w->C, w->q, w->Q, rows, w);
    linear(&b->k, &b->q, w->h, w->C, w->k, w->KV, rows, w);
    linear(&b->v, &b->k, w->h, w->C, w->v, w->KV, rows, w);
    for (int r = 0, n = 1; r < rows; r++, n++) { // n rows look at once
        float *q = w->q + r * w->Q, *k = w->k + r * w->KV, *v = w->v + r * w->KV;
        const int turned = m->position == ROPE && !c->window;
        const float *turn = turned ? m->table + (int64_t)position[r] * D : NULL;
        for (int h = 0; h < m->heads; h++) prepare(&b->q_norm, turn, q + h * D, D);
        for (int h = 0; h < m->kv_heads; h++) {
            prepare(&b->k_norm, turn, k + h * D, D);
            int64_t affine, at = place_of(c, sequence[r], slot_of(c, position[r]), h, &affine);
            if (put(c, k + h * D, c->k[layer] + at, c->k_affine[layer] + affine, D) ||
                put(c, v + h * D, c->v[layer] + at, c->v_affine[layer] + affine, D))
                return SCALE_OVERFLOW;
        }
        // A window is looked at before the next token takes a slot of it.
        if (r + 1 < rows && sequence[r + 1] == sequence[r] && n < side && !c->window) continue;
        const Look seen = {m, c, sequence, position, w, layer, r - n + 1, n};
        const int64_t tokens = c->window ? c->window : position[r] + 1;
        const int threads = threads_for(w, 8 * D * tokens * m->heads * n);
        share(look, &seen, threads < m->kv_heads ? threads : m->kv_heads, threads);
        n = 0;
    }
    linear(&b->out, NULL, w->a, w->Q, w->h, w->C, rows, w);
    for (int i = 0; i < rows * w->C; i++) w->x[i] += w->h[i]; // the padding of both is zero
    for (int r = 0; r < rows; r++) normalize(&b->ffn_norm, w->x + r * w->C, w->h + r * w->C, C);
    if (m->ffn == SWIGLU) linear(&b->gate, NULL, w->h, w->C, w->g, w->F, rows, w);
    linear(&b->up, m->ffn == SWIGLU ? &b->gate : NULL, w->h, w->C, w->f, w->F, rows, w);
    for (int r = 0; r < rows; r++) activate(m->ffn, w->f + r * w->F, w->g + r * w->F, m->ffn_dim);
    linear(&b->down, NULL, w->f, w->F, w->h, w->C, rows, w);
    for (int i = 0; i < rows * w->C; i++) w->x[i] += w->h[i];
    return w->broken ? NOT_FINITE : OK;
}

// Feed rows; leaves the final-normed states, (rows, C), in `hidden` unless that is NULL. Rows of
// one sequence follow one another in order of position. `tokens` bounds the positions: the size of
// the arena.
int engine_step(const Model *m, const Cache *c, const int32_t *token, const int32_t *sequence,
         const int32_t *position, int rows, float *hidden, float *arena, int64_t tokens) {
    Work w;
    lay(m, tokens, 0, arena, &w);
    for (int first = 0, some; first < rows; first += some) {
        some = rows - first < ROWS ? rows - first : ROWS;
        for (int r = 0; r < some; r++) {
            float *x = w.x + r * w.C;
            row_of(&m->embedding, token[first + r], x);
            if (m->position == SINUSOIDAL)
                for (int i = 0; i < m->width; i++)
                    x[i] += m->table[(int64_t)position[first + r] * m->width + i];
        }
        for (int i = 0, bad; i < m->layers; i++)
            if ((bad = residual(m, c, i, sequence + first, position + first, some, &w))) return bad;
        for (int r = 0; hidden && r < some; r++)
            normalize(&m->norm, w.x + r * w.C, hidden + (int64_t)(first + r) * m->width, m->width);
    }
    return OK;
}

// y = W x + b for any number of rows: states (rows, K) -> (rows, N), compact. The head, and what
// the tests of the kernels call.
int engine_multiply(const Model *m, const Matrix *matrix, const float *x, int rows, float *y,
                    float *arena) {
    Work w;
    lay(m, 1, 0, arena, &w);
    const int K = matrix->columns;
    for (int first = 0, some; first < rows; first += some) {
        some = rows - first < ROWS ? rows - first : ROWS;
        for (int r = 0; r < some; r++) {
            memcpy(w.g + r * w.K, x + (int64_t)(first + r) * K, K * sizeof *x);
            memset(w.g + r * w.K + K, 0, (w.K - K) * sizeof *x);
        }
        linear(matrix, NULL, w.g, w.K, y + (int64_t)first * matrix->rows, matrix->rows, some, &w);
    }
    return w.broken ? NOT_FINITE : OK;
}

// Where the row of the last step, which was of one row, looks in the last block: what each of its
// heads gives each token of a sequence up to `position`, y (H, position + 1). For a page to show.
void engine_attention(const Model *m, const Cache *c, int32_t sequence, int32_t position, float *y,
                      float *arena, int64_t tokens) {
    const int D = m->head_dim, group = m->heads / m->kv_heads;
    Work w;
    lay(m, tokens, 0, arena, &w);
    const Sight s = sight_of(m, c, m->layers - 1, sequence, position, w.run);
    Run run = {0};
    for (int h = 0; h < m->heads; h++, y += s.count) {
        for (int64_t i = 0; i < s.count; i += run.n) {
            run = run_of(&s, h / group, i, KEYS);
            for (int64_t t = 0; t < run.n; t++) {
                const float *key = (const float *)(run.at + t * run.stride);
                w.score[i + t] = 0;
                for (int d = 0; d < D; d++) w.score[i + t] += w.q[h * D + d] * key[d];
            }
        }
        soften(w.score, s.count, 1 / sqrtf(D));
        memcpy(y, w.score, s.count * sizeof *y);
    }
}

// ---- 9. The choice ----------------------------------------------------------------------------

// Order of ids by logit, the lower id first among equals: a heap that gives the best one by one.
static int before(const float *x, int32_t a, int32_t b) {
    return x[a] > x[b] || (x[a] == x[b] && a < b);
}

// Moves the id at i down to its place among n.
static void sink(const float *x, int32_t *heap, int i, int n) {
    for (int32_t id = heap[i]; 2 * i + 1 < n;) {
        int child = 2 * i + 1;
        child += child + 1 < n && before(x, heap[child + 1], heap[child]);
        if (!before(x, heap[child], id)) return;
        heap[i] = heap[child], heap[child] = id, i = child;
    }
}

// The best of n, which goes to their end.
static int32_t pop(const float *x, int32_t *heap, int n) {
    const int32_t id = heap[0];
    heap[0] = heap[n - 1], heap[n - 1] = id;
    return sink(x, heap, 0, n - 1), id;
}

static int32_t first_of(const float *x, float value, int n) { // in runs first, as vectors
    int32_t i = 0;
    for (int there = 0; i + RUN <= n && !there; i += there ? 0 : RUN)
        for (int j = i; j < i + RUN; j++) there |= x[j] == value;
    while (i < n - 1 && x[i] != value) i++;
    return i;
}

// The next token from logits x (V), which it changes; `seen` marks tokens already there; `noise` is
// exponential, and the token the winner of the race p / E. -1 where there is no distribution.
static int32_t choose(float *x, int V, const Sampling *s, const uint8_t *seen, const float *noise,
                      int32_t *heap) {
    const int keep = s->top_k && s->top_k < V ? s->top_k : V;
    for (int i = 0; s->penalty != 1 && i < V; i++)
        if (seen[i]) x[i] = x[i] > 0 ? x[i] / s->penalty : x[i] * s->penalty;
    const float most = highest(x, V);
    float sum = 0, passed = 0, won = -1;
    int32_t winner = -1, wrong = 0;
    for (int i = 0; i < V; i++) wrong |= !(x[i] - most <= 0); // no number, or infinite
    if (wrong) return -1;
    if (s->temperature == 0) return first_of(x, most, V);
    for (int i = 0; i < V; i++) x[i] = (x[i] - most) / s->temperature;
    if (keep == V && s->top_p >= 1) {
        for (int i = 0; i < V; i++) x[i] = exponential(x[i]) / noise[i];
        return first_of(x, highest(x, V), V);
    }
    for (int i = 0; i < V; i++) heap[i] = i;
    for (int i = V / 2; i-- > 0;) sink(x, heap, i, V);
    for (int i = 0; keep == V && i < V; i++) sum += exponential(x[i]);
    for (int i = 0; keep < V && i < keep; i++) sum += exponential(x[pop(x, heap, V - i)]);
    for (int i = 0; i < keep && (passed < s->top_p || s->top_p >= 1); i++) {
        const int32_t id = keep < V ? heap[V - 1 - i] : pop(x, heap, V - i);
        const float p = exponential(x[id]) / sum;
        passed += p;
        if (p / noise[id] > won || (p / noise[id] == won && id < winner))
            won = p / noise[id], winner = id;
    }
    return winner;
}

// The k likeliest of the texts that go on by one token from `rows` others, which have logits x
// (rows, V) and log-probabilities `before`: log p as `value`, -inf for those that cannot be, and
// r V + token as `index`, the best first, the lower index of equals. An error where a row gives no
// distribution.
int engine_best(const Model *m, const float *x, int rows, const double *before, int k,
                double *value, int32_t *index) {
    const int V = m->vocab;
    for (int i = 0; i < k; i++) value[i] = -INFINITY;
    for (int r = 0; r < rows; r++, x += V) {
        float most = highest(x, V), sum = 0, part[RUN] = {0}; // each place of a run: as vectors
        for (int i = 0; i < V; i += RUN)
            for (int j = 0; j < (V - i < RUN ? V - i : RUN); j++)
                part[j] += exponential(x[i + j] - most);
        for (int j = 0; j < RUN; j++) sum += part[j];
        if (!(sum > 0)) return NOT_FINITE;
        const double less = before[r] - most - log(sum);
        for (int i = 0, at; i < V; i++) {
            for (at = k; at && value[at - 1] < less + x[i]; at--)
                if (at < k) value[at] = value[at - 1], index[at] = index[at - 1];
            if (at < k) value[at] = less + x[i], index[at] = r * V + i;
        }
    }
    return OK;
}

// ---- 10. Generation ---------------------------------------------------------------------------

// Up to `steps` tokens more for each of B sequences: row b of `ids`, (B, stride), holds length[b]
// tokens, of which the cache has the first fed[b]. `noise` is (steps, B, V) or NULL, `seen` (B, V)
// or NULL. A sequence that chose a stop token is `done` (B): it is fed no more and repeats that
// token. Returns the steps made, fewer where all are done, or an error.
int engine_generate(const Model *m, const Cache *c, const Sampling *s, int B, int64_t *ids,
                    int64_t stride, const int64_t *fed, const int64_t *length, int steps,
                    const float *noise, uint8_t *seen, const int32_t *stop, int stops,
                    uint8_t *done, float *arena, int64_t tokens) {
    const int64_t V = m->vocab, most = B > ROWS ? B : ROWS;
    int32_t token[most], sequence[most], position[most];
    int bad, rows = 0;
    Work w;
    lay(m, tokens, B, arena, &w);
    for (int64_t b = 0, t = fed[0]; b < B;) { // the prompts, but for their last tokens
        if (t < length[b] - 1)
            token[rows] = ids[b * stride + t], sequence[rows] = b, position[rows++] = t++;
        else if (++b < B)
            t = fed[b];
        if (rows == ROWS || (rows && b == B)) {
            bad = engine_step(m, c, token, sequence, position, rows, NULL, arena, tokens), rows = 0;
            if (bad) return bad;
        }
    }
    for (int i = 0; i < steps; i++) {
        rows = 0;
        for (int b = 0; b < B; b++) {
            int64_t at = length[b] + i, *next = ids + b * stride + at;
            *next = next[-1];
            if (!done[b]) token[rows] = *next, sequence[rows] = b, position[rows++] = at - 1;
        }
        if (rows == 0) return i;
        bad = engine_step(m, c, token, sequence, position, rows, w.hidden, arena, tokens);
        if (bad || (bad = engine_multiply(m, &m->head, w.hidden, rows, w.logits, arena)))
            return bad;
        for (int r = 0; r < rows; r++) {
            int b = sequence[r];
            const float *e = noise ? noise + (i * (int64_t)B + b) * V : NULL;
            int32_t next = choose(w.logits + r * V, V, s, seen ? seen + b * V : NULL, e, w.heap);
            if (next < 0) return NOT_FINITE;
            if (seen) seen[b * V + next] = 1;
            ids[b * stride + length[b] + i] = next;
            for (int j = 0; j < stops; j++) done[b] |= next == stop[j];
        }
    }
    return steps;
}
