// The decode engine: one step of a decoder-only transformer over rows of (token, sequence,
// position), and the loop that chooses the next tokens without coming back.
//
// Read from top to bottom: 1 shapes, 2 lanes, 3 tiles of a product, 4 activations and linear
// layers, 5 keys and values, 6 attention, 7 the step, 8 the choice, 9 generation. C11 with the
// vector extensions of GCC and Clang, and libm; AVX2 where it was measured to matter. Compiled with
// -DPORTABLE the same file has no intrinsics: that is the twin which the tests compare.
//
// The caller has checked every shape, index and scale, and owns all memory. Nothing is allocated
// here. Letters as in the library: B sequences, H query heads, Hkv key and value heads, D numbers
// of a head, C width of the model, V vocabulary; N rows and K columns of a matrix, M rows of x.

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__) && defined(__FMA__) && !defined(PORTABLE)
#define AVX2
#include <immintrin.h>
#endif

// ---- 1. Shapes --------------------------------------------------------------------------------

enum { LANES = 8, ROWS = 60, TILE = 12, RUN = 64 }; // of a panel; most rows, queries, keys at once
enum { BLOCK = 1 << 17 };                // bytes of weights that meet one row tile after another
enum { ROPE, SINUSOIDAL, NONE }; enum { RELU, GELU, RELU2, SWIGLU };

// A matrix W (N, K) in panels of 8 rows, the last filled with zeros, so that a lane of a vector is
// a row and no sum ever crosses lanes. In FP32 a panel is [K][8] numbers, in codes [words][8]: a
// word of 32 bits holds consecutive columns, 4 signed codes of 8 bits, or 8 unsigned ones of 4
// (column i in bits 8 (i % 4) + 4 (i / 4)). W = (code - zero) * scale, or table[code] * scale. The
// number of panels is even.
typedef struct {
    const void *data;
    int64_t column, panel; // of floats: from one to the next, in numbers
    const float *scale;   // [panel][group][8]
    const uint8_t *zero;  // [panel][group][8], signed; NULL: `middle` everywhere
    const float *bias;    // [panel][8], or NULL
    const float *table;   // 16 levels of a codebook, or NULL
    const uint8_t *exact; // [K], 1 where activations are not rounded; NULL: nowhere
    int32_t rows, columns, bits;
    int32_t group;  // columns that share a scale: a multiple of 8, or all
    int32_t groups, words, each; // groups and words of a panel, words of a group
    int32_t middle; // the zero-point of a symmetric scheme
    int32_t act_bits; // bits the input is rounded to, 0: none
    int32_t act_symmetric; // codes around zero
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
    int32_t layers, heads, kv_heads, head_dim, width, ffn_dim, vocab, position, ffn;
} Model;

// Keys and values where the cache keeps them. Token t of a sequence lies in slot t (in a window:
// sinks first, then a ring), slot s in block table[sequence][s / block], and the D numbers of a
// head at block * block_stride + (s % block) * token_stride + head * head_stride bytes from the
// layer's base. 32 bits: floats. 8 bits: codes around 128 times a scale. 4 bits: codes times a
// scale plus a minimum. Both are halves, at the same kind of distance from a base of their own.
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
// numbers, and nothing writes to the padding: it stays zero.
typedef struct {
    float *x, *h, *q, *k, *v, *a, *f, *g, *rounded, *step, *run, *keys, *score;
    float *logits, *hidden; // of a generation, (B, V) and (B, C)
    int32_t *heap;          // (V,)
    int8_t *codes; // of activations,
    int32_t *sums; // and what they sum to over each group, times the zero-point if there is one
    int32_t C, Q, KV, F, K, G; // padded widths; groups at most
    int32_t broken;            // an activation was not finite where it had to be rounded
} Work;

static int64_t up8(int64_t n) { return (n + 7) & ~(int64_t)7; }
static int64_t up16(int64_t n) { return (n + 15) & ~(int64_t)15; }

static int64_t lay(const Model *m, int64_t tokens, int64_t B, float *base, Work *w) {
    int64_t C = up8(m->width), Q = up8(m->heads * m->head_dim), KV = up8(m->kv_heads * m->head_dim);
    int64_t F = up8(m->ffn_dim), K = C > F ? C : F;
    K = K > Q ? K : Q;
    *w = (Work){.C = C, .Q = Q, .KV = KV, .F = F, .K = K, .G = K / 8};
    float **parts[] = {&w->x, &w->h, &w->q, &w->k, &w->v, &w->a, &w->f, &w->g, &w->rounded};
    int64_t widths[] = {C, C, Q, KV, KV, Q, F, K, K}, n = 0;
    for (int i = 0; i < 9; i++) {
        *parts[i] = base + n;
        n += ROWS * widths[i];
    }
    w->codes = (int8_t *)(base + n), n += ROWS * K / 4;
    w->sums = (int32_t *)(base + n), n += ROWS * w->G;
    w->step = base + n, n += ROWS, w->run = base + n, n += RUN * up16(m->head_dim);
    w->keys = base + n, n += RUN * m->head_dim;
    w->score = base + n, n += m->heads / m->kv_heads * TILE * up8(tokens);
    w->logits = base + n, n += B * m->vocab, w->hidden = base + n, n += B * m->width;
    w->heap = (int32_t *)(base + n), n += m->vocab;
    return n;
}

int64_t engine_arena(const Model *m, int64_t tokens, int64_t B) {
    Work w;
    return lay(m, tokens, B, (float *)64, &w); // addresses are computed, none is used
}

const char *engine_instructions(void) {
#ifdef AVX2
    return "avx2";
#else
    return "portable";
#endif
}

// ---- 2. Lanes ---------------------------------------------------------------------------------

#define INLINE static inline __attribute__((always_inline))

typedef float v8f __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t v8i __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint32_t v8u __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint8_t v8b __attribute__((vector_size(8), aligned(1), may_alias));
typedef int32_t four_bytes __attribute__((aligned(1), may_alias)); // codes side by side
typedef int32_t float_bits __attribute__((may_alias));
typedef uint32_t four_codes __attribute__((aligned(1), may_alias)); // low bits first

INLINE v8f load(const float *p) { return *(const v8f *)p; }

// The same, in a register: or GCC loads it anew for each sum that it goes into.
INLINE v8f held(v8f x) {
#ifdef AVX2
    __asm__("" : "+x"(x));
#endif
    return x;
}

INLINE v8i chosen(v8i where, v8i yes, v8i no) { return (yes & where) | (no & ~where); }

// Eight numbers of eight rows, turned.
INLINE void transpose(const float *from, int64_t stride, float *to) {
#ifdef AVX2
    __m256 a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        __m256 one = _mm256_loadu_ps(from + i * stride), two = _mm256_loadu_ps(from + (i + 1) * stride);
        a[i] = _mm256_unpacklo_ps(one, two), a[i + 1] = _mm256_unpackhi_ps(one, two);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            b[i + 2 * j] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0x44);
            b[i + 2 * j + 1] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0xee);
        }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + i * LANES, _mm256_permute2f128_ps(b[i], b[i + 4], 0x20));
        _mm256_storeu_ps(to + (i + 4) * LANES, _mm256_permute2f128_ps(b[i], b[i + 4], 0x31));
    }
#else
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < LANES; j++)
            to[j * LANES + i] = from[i * stride + j];
#endif
}

// Eight numbers of 8 bits.
INLINE void narrow(int8_t *p, v8i x) {
#ifdef AVX2
    __m128i low = _mm256_castsi256_si128((__m256i)x), high = _mm256_extracti128_si256((__m256i)x, 1);
    low = _mm_packs_epi32(low, high);
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(low, low));
#else
    for (int i = 0; i < LANES; i++)
        p[i] = (int8_t)x[i];
#endif
}

INLINE void store(float *p, v8f x, int n) {
    if (n >= LANES)
        *(v8f *)p = x;
    else
        for (int i = 0; i < n; i++)
            p[i] = x[i];
}

INLINE float total(v8f x) {
    return ((x[0] + x[4]) + (x[1] + x[5])) + ((x[2] + x[6]) + (x[3] + x[7]));
}

// e^x by 2^n · polynomial, |error| < 2e-7 of the result; a loop over it becomes vectors.
INLINE float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f; // rounds to a whole number
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1 / 720.0f;
    p = p * r + 1 / 120.0f, p = p * r + 1 / 24.0f, p = p * r + 1 / 6.0f, p = p * r + 0.5f;
    union { int32_t bits; float value; } power = {((int32_t)n + 127) << 23};
    return (p * r * r + r + 1) * power.value;
}

// erf by Abramowitz and Stegun 7.1.26, |error| < 1.5e-7.
INLINE float error_function(float x) {
    float a = x < 0 ? -x : x, t = 1 / (1 + 0.3275911f * a);
    float p = 1.061405429f;
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
    if (a < 0x38800000) { // below the smallest normal half: a whole number of 2^-24
        u.bits = a;
        return sign | (uint16_t)lrintf(u.value * 16777216.0f);
    }
    a += 0xfff + (a >> 13 & 1);
    return sign | (uint16_t)((a - 0x38000000) >> 13);
}

static float float_of(uint16_t h) {
#if defined(AVX2) && defined(__F16C__)
    return _cvtsh_ss(h);
#endif
    union { uint32_t bits; float value; } u = {(uint32_t)(h & 0x7fff) << 13};
    int exponent = h >> 10 & 31;
    if (exponent == 31)
        u.bits += 0x70000000;
    else if (exponent)
        u.bits += 0x38000000;
    else
        u.value = (h & 0x3ff) / 16777216.0f;
    return h & 0x8000 ? -u.value : u.value;
}

// ---- 3. Tiles: panels of W times M rows of x --------------------------------------------------

// Rows of activations: floats, or codes with sums and steps; y = … or, with `more`, y += ….
typedef struct {
    const float *x;
    int64_t stride; // from one row to the next, in numbers
    const int8_t *codes;
    const int32_t *sums;
    const float *step;
    int64_t groups; // from one row of sums to the next
    int more;
} Input;

// y[r P + p] += Σ w[k] · x[r][k] for P panels, K columns each, `column` and `panel` numbers apart.
// 12 sums at once, in 16 registers: an addition takes as long as 8 of them need to begin.
INLINE void tile_fp32(const float *w, int64_t column, int64_t panel, int64_t K, const float *x,
                      int64_t stride, v8f *y, const int M, const int P) {
    const int U = M * P < 12 ? 12 / (M * P) : 1; // columns side by side
    int64_t k = 0;
    v8f sum[16];
    for (int i = 0; i < M * P * U; i++) // not = {0}: that would call memset for the rest
        sum[i] = (v8f){0};
    for (; k + U <= K; k += U)
        for (int u = 0; u < U; u++) {
            v8f part[2];
            for (int p = 0; p < P; p++)
                part[p] = held(load(w + (k + u) * column + p * panel));
            for (int r = 0; r < M; r++)
                for (int p = 0; p < P; p++)
                    sum[(r * P + p) * U + u] += part[p] * x[r * stride + k + u];
        }
    for (; k < K; k++)
        for (int r = 0; r < M; r++)
            for (int p = 0; p < P; p++)
                sum[(r * P + p) * U] += load(w + k * column + p * panel) * x[r * stride + k];
    for (int i = 0; i < M * P; i++)
        for (int u = 0; u < U; u++)
            y[i] += sum[i * U + u];
}

// The words of a panel.
INLINE const v8u *words_of(const Matrix *w, int64_t panel) {
    return (const v8u *)w->data + panel * w->words;
}

// Eight bytes as eight lanes.
INLINE v8i widened(const uint8_t *p) {
#ifdef AVX2
    return (v8i)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
#else
    return __builtin_convertvector(*(const v8b *)p, v8i);
#endif
}

INLINE v8i zeros_of(const Matrix *w, int64_t group) {
    if (!w->zero)
        return (v8i){0} + w->middle;
    return (widened(w->zero + group * LANES) ^ 128) - 128; // signed
}

INLINE v8f looked_up(const float *table, v8i code) {
#ifdef AVX2
    __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)code);
    __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), (__m256i)code);
    return (v8f)_mm256_blendv_ps(low, high, (__m256)_mm256_slli_epi32((__m256i)code, 28));
#else
    v8f x;
    for (int i = 0; i < LANES; i++)
        x[i] = table[code[i]];
    return x;
#endif
}

// The j-th column of a word: 8 bits are signed, 4 are not.
INLINE v8i code_of(v8u word, int j, const int bits) {
    if (bits == 8)
        return (v8i)(word << (24 - 8 * j)) >> 24;
    return (v8i)(word >> (8 * (j % 4) + 4 * (j / 4)) & 15);
}

// Codes times floats: each code becomes a float in its lane, for all M rows.
INLINE void tile_codes(const Matrix *w, int64_t panel, Input in, v8f *y, const int M,
                       const int bits, const int coded) {
    const int columns = 32 / bits, U = M < 4 ? 4 : 1;
    const v8u *word = words_of(w, panel);
    for (int64_t g = 0, i = 0; g < w->groups; g++) {
        int64_t group = panel * w->groups + g;
        v8i zero = zeros_of(w, group);
        v8f sum[8];
        for (int r = 0; r < M * U; r++)
            sum[r] = (v8f){0};
        for (int64_t end = i + w->each < w->words ? i + w->each : w->words; i < end; i++)
            for (int j = 0; j < columns; j++) {
                v8i code = code_of(word[i], j, bits);
                v8f value = coded ? looked_up(w->table, code)
                                  : __builtin_convertvector(code - zero, v8f);
                for (int r = 0; r < M; r++)
                    sum[r * U + j % U] += value * in.x[r * in.stride + i * columns + j];
            }
        for (int r = 0; r < M; r++)
            for (int u = 0; u < U; u++)
                y[r] += sum[r * U + u] * load(w->scale + group * LANES);
    }
}

// dot[r P + p] += Σ code · activation over words i to end of P panels, all integers: exact.
INLINE void dots8(const v8u *word, int64_t words, int64_t i, int64_t end, Input in, v8i *dot,
                  const int M, const int P) {
    for (; i < end; i++)
        for (int p = 0; p < P; p++) {
#ifdef AVX2 // sizes times activations of their signs: pairs are 2 · 128 · 127 = 32512 at most
            __m256i codes = (__m256i)word[p * words + i], size = _mm256_abs_epi8(codes);
            for (int r = 0; r < M; r++) {
                const four_bytes *four = (const four_bytes *)(in.codes + r * in.stride + 4 * i);
                __m256i x = _mm256_sign_epi8(_mm256_set1_epi32(*four), codes);
                x = _mm256_madd_epi16(_mm256_maddubs_epi16(size, x), _mm256_set1_epi16(1));
                dot[r * P + p] += (v8i)x;
            }
#else
            for (int j = 0; j < 4; j++)
                for (int r = 0; r < M; r++)
                    dot[r * P + p] += code_of(word[p * words + i], j, 8) *
                                      in.codes[r * in.stride + 4 * i + j];
#endif
        }
}

INLINE void dots4(const v8u *word, int64_t words, int64_t i, int64_t end, Input in, v8i *dot,
                  const int M, const int P) {
    for (; i < end; i++)
        for (int p = 0; p < P; p++) {
#ifdef AVX2 // pairs are 2 · 15 · 127 = 3810 at most
            const __m256i codes = (__m256i)word[p * words + i], nibble = _mm256_set1_epi8(15);
            __m256i low = _mm256_and_si256(codes, nibble);
            __m256i high = _mm256_and_si256(_mm256_srli_epi16(codes, 4), nibble);
            for (int r = 0; r < M; r++) {
                const four_bytes *four = (const four_bytes *)(in.codes + r * in.stride + 8 * i);
                __m256i a = _mm256_maddubs_epi16(low, _mm256_set1_epi32(four[0]));
                a = _mm256_add_epi16(a, _mm256_maddubs_epi16(high, _mm256_set1_epi32(four[1])));
                dot[r * P + p] += (v8i)_mm256_madd_epi16(a, _mm256_set1_epi16(1));
            }
#else
            for (int j = 0; j < 8; j++)
                for (int r = 0; r < M; r++)
                    dot[r * P + p] += code_of(word[p * words + i], j, 4) *
                                      in.codes[r * in.stride + 8 * i + j];
#endif
        }
}

// Codes times codes: Σ (w - zero) · x = Σ w · x - zero · Σ x, in integers, group by group.
INLINE void tile_integers(const Matrix *w, int64_t panel, Input in, v8f *y, const int M,
                          const int P, const int bits) {
    const v8u *word = words_of(w, panel);
    for (int64_t g = 0, i = 0; g < w->groups; g++, i += w->each) {
        const int64_t end = i + w->each < w->words ? i + w->each : w->words;
        v8i dot[8];
        for (int j = 0; j < M * P; j++)
            dot[j] = (v8i){0};
        if (bits == 8)
            dots8(word, w->words, i, end, in, dot, M, P);
        else
            dots4(word, w->words, i, end, in, dot, M, P);
        for (int p = 0; p < P; p++) {
            const int64_t group = (panel + p) * w->groups + g;
            v8f scale = load(w->scale + group * LANES);
            for (int r = 0; r < M; r++) {
                v8i less = (v8i){0} + in.sums[r * in.groups + g];
                if (w->zero)
                    less *= zeros_of(w, group);
                y[r * P + p] += scale * __builtin_convertvector(dot[r * P + p] - less, v8f);
            }
        }
    }
}

// ---- 4. Activations and linear layers ---------------------------------------------------------

static float step_of(float span, Work *work) { // as affine.stored_scale, in FP32
    if (span == 0)
        return 1;
    if (!(span <= 3.4028235e38f)) {
        work->broken = 1;
        return 1;
    }
    return span < 1.4e-45f ? 1.4e-45f : span;
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
    for (int l = 0; l < LANES; l++)
        all.bits = most[l] > all.bits ? most[l] : all.bits;
    return all.bits < 0x7f800000 ? all.value : INFINITY;
}

// Rows of x, padded with zeros, to codes around zero, their steps, and their sums over each group.
static void encode(const Matrix *w, const float *x, int64_t stride, int m, Work *work) {
    const int n = up8(w->columns), most = (1 << (w->act_bits - 1)) - 1;
    const v8f whole = (v8f){0} + 12582912.0f; // added, it rounds: ties to even
    for (int r = 0; r < m; r++, x += stride) {
        int8_t *codes = work->codes + r * work->K;
        float step = step_of(largest(x, n) / most, work);
        work->step[r] = step;
        for (int g = 0, i = 0; i < n; g++) {
            v8i sum = {0};
            for (int end = i + w->group < w->columns ? i + w->group : n; i < end; i += LANES) {
                v8i code = (v8i)(load(x + i) / step + whole) - (v8i)whole;
                code = chosen(code > most, (v8i){0} + most, code);
                code = chosen(code < -most, (v8i){0} - most, code);
                sum += code;
                narrow(codes + i, code);
            }
            int32_t *all = work->sums + r * work->G + g;
            *all = (sum[0] + sum[4]) + (sum[1] + sum[5]) + (sum[2] + sum[6]) + (sum[3] + sum[7]);
            *all *= w->zero ? 1 : w->middle;
        }
    }
}

// Rows of x to the floats on the grid of their codes: what integers cannot multiply.
static const float *rounded(const Matrix *w, const float *x, int64_t stride, int m, Work *work) {
    const int n = w->columns, levels = (1 << w->act_bits) - 1, half = levels / 2;
    for (int r = 0; r < m; r++, x += stride) {
        float *y = work->rounded + r * work->K;
        float low = 0, high = 0;
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

enum { FP32, CODES8, CODES4, TABLE4, INTEGERS8, INTEGERS4 };

static int kind_of(const Matrix *w) {
    if (w->bits == 32)
        return FP32;
    if (w->table)
        return TABLE4;
    if (w->act_bits && w->act_symmetric && !w->exact)
        return w->bits == 8 ? INTEGERS8 : INTEGERS4;
    return w->bits == 8 ? CODES8 : CODES4;
}

// P panels for M rows of x.
INLINE void tile(const int kind, const Matrix *w, int64_t p, Input in, float *y, int64_t stride,
                 const int M, const int P) {
    v8f sum[16];
    for (int i = 0; i < M * P; i++)
        sum[i] = (v8f){0};
    if (kind == FP32)
        tile_fp32((const float *)w->data + p * w->panel, w->column, w->panel, w->columns, in.x,
                  in.stride, sum, M, P);
    else if (kind == INTEGERS8 || kind == INTEGERS4)
        tile_integers(w, p, in, sum, M, P, kind == INTEGERS8 ? 8 : 4);
    else
        tile_codes(w, p, in, sum, M, kind == CODES8 ? 8 : 4, kind == TABLE4);
    for (int i = 0; i < P; i++, p++) {
        v8f bias = w->bias ? load(w->bias + p * LANES) : (v8f){0};
        for (int r = 0; r < M; r++) {
            float *to = y + r * stride + p * LANES;
            v8f one = sum[r * P + i];
            if (kind >= INTEGERS8)
                one *= in.step[r];
            store(to, one + (kind == FP32 && in.more ? load(to) : bias), w->rows - p * LANES);
        }
    }
}

// M rows of x with panels `first` to `end`: two panels at once where registers allow.
INLINE void tiles(const int kind, const Matrix *w, int64_t first, int64_t end, Input in, float *y,
                  int64_t stride, const int M) {
    const int P = kind == FP32 || (kind >= INTEGERS8 && M < 4) ? 2 : 1;
    for (int64_t p = first; p < end; p += P)
        tile(kind, w, p, in, y, stride, M, P);
}

// All panels, in blocks that the second cache holds for the rows that follow: so many at a time.
INLINE void product(const int kind, const Matrix *w, Input in, float *y, int64_t stride, int m) {
    const int most = kind == FP32 ? 6 : 8, half = most / 2;
    const int64_t panels = (w->rows + LANES - 1) / LANES, size = (int64_t)w->columns * w->bits;
    const int64_t block = size < BLOCK / 2 ? BLOCK / size / 2 * 2 : 2;
    for (int64_t first = 0; first < panels; first += block)
        for (int r = 0, some; r < m; r += some) {
            const int64_t end = first + block < panels ? first + block : panels;
            Input from = in;
            from.x += r * in.stride, from.codes += r * in.stride, from.sums += r * in.groups;
            from.step += r;
            some = m - r >= most ? most : m - r >= half ? half : m - r >= 2 ? 2 : 1;
            if (some == most)
                tiles(kind, w, first, end, from, y + r * stride, stride, most);
            else if (some == half)
                tiles(kind, w, first, end, from, y + r * stride, stride, half);
            else if (some == 2)
                tiles(kind, w, first, end, from, y + r * stride, stride, 2);
            else
                tiles(kind, w, first, end, from, y + r * stride, stride, 1);
        }
}

static void product_fp32(const Matrix *w, Input in, float *y, int64_t stride, int m) {
    product(FP32, w, in, y, stride, m);
}

// y = W x + b for m <= ROWS rows. Rows of x are padded with zeros, y is written up to N.
static void linear(const Matrix *w, const float *x, int64_t from, float *y, int64_t to, int m,
                   Work *work) {
    const int kind = kind_of(w);
    if (kind >= INTEGERS8)
        encode(w, x, from, m, work), from = work->K;
    else if (w->act_bits)
        x = rounded(w, x, from, m, work), from = work->K;
    Input in = {x, from, work->codes, work->sums, work->step, work->G, 0};
    switch (kind) {
    case FP32: product_fp32(w, in, y, to, m); break;
    case CODES8: product(CODES8, w, in, y, to, m); break;
    case CODES4: product(CODES4, w, in, y, to, m); break;
    case TABLE4: product(TABLE4, w, in, y, to, m); break;
    case INTEGERS8: product(INTEGERS8, w, in, y, to, m); break;
    default: product(INTEGERS4, w, in, y, to, m);
    }
}

// Row n of W, for the embedding: every eighth number of its panel.
static void row_of(const Matrix *w, int64_t n, float *y) {
    int64_t panel = n / LANES, lane = n % LANES;
    if (w->bits == 32) {
        const float *p = (const float *)w->data + panel * w->columns * LANES + lane;
        for (int k = 0; k < w->columns; k++)
            y[k] = p[k * LANES];
        return;
    }
    const uint32_t *word = (const uint32_t *)words_of(w, panel) + lane;
    const int columns = 32 / w->bits;
    for (int g = 0, k = 0; g < w->groups; g++) {
        int64_t at = (panel * w->groups + g) * LANES + lane;
        int zero = w->zero ? (int8_t)w->zero[at] : w->middle;
        for (int end = k + w->group < w->columns ? k + w->group : w->columns; k < end; k++) {
            int code = code_of((v8u){word[k / columns * LANES]}, k % columns, w->bits)[0];
            y[k] = (w->table ? w->table[code] : code - zero) * w->scale[at];
        }
    }
}

static void normalize(const Norm *norm, const float *x, float *y, int n) {
    float mean = 0;
    v8f sum = {0};
    int whole = n / LANES * LANES;
    if (norm->bias) { // LayerNorm
        for (int i = 0; i < whole; i += LANES)
            sum += load(x + i);
        mean = total(sum);
        for (int i = whole; i < n; i++)
            mean += x[i];
        mean /= n, sum = (v8f){0};
    }
    for (int i = 0; i < whole; i += LANES)
        sum += (load(x + i) - mean) * (load(x + i) - mean);
    float square = total(sum);
    for (int i = whole; i < n; i++)
        square += (x[i] - mean) * (x[i] - mean);
    float scale = 1 / sqrtf(square / n + norm->eps);
    for (int i = 0; i < n; i++)
        y[i] = (x[i] - mean) * scale * norm->weight[i] + (norm->bias ? norm->bias[i] : 0);
}

// f = act(f), or silu(g) · f.
static void activate(int kind, float *restrict f, const float *restrict g, int n) {
    if (kind == RELU)
        for (int i = 0; i < n; i++)
            f[i] = f[i] > 0 ? f[i] : 0;
    else if (kind == RELU2)
        for (int i = 0; i < n; i++)
            f[i] = f[i] > 0 ? f[i] * f[i] : 0;
    else if (kind == GELU)
        for (int i = 0; i < n; i++)
            f[i] = 0.5f * f[i] * (1 + error_function(f[i] * 0.70710678f));
    else
        for (int i = 0; i < n; i++)
            f[i] *= g[i] / (1 + exponential(-g[i]));
}

// ---- 5. Keys and values -----------------------------------------------------------------------

static void rotate(float *x, const float *cosine, const float *sine, float sign, int D) {
    for (int i = 0; i < D / 2; i++) {
        float a = x[i], b = x[i + D / 2], s = sign * sine[i];
        x[i] = a * cosine[i] - b * s;
        x[i + D / 2] = b * cosine[i] + a * s;
    }
}

// Where a slot of a sequence begins, and its scale.
static int64_t place_of(const Cache *c, int64_t sequence, int64_t slot, int head, int64_t *affine) {
    int64_t block = c->table[sequence * c->blocks + slot / c->block];
    *affine = block * c->affine_block + slot % c->block * c->affine_token + head * c->affine_head;
    return block * c->block_stride + slot % c->block * c->token_stride + head * c->head_stride;
}

static int64_t slot_of(const Cache *c, int64_t token) {
    if (!c->window || token < c->sinks)
        return token;
    return c->sinks + (token - c->sinks) % c->ring;
}

// Write D numbers of one head, by the rules of the library's caches. 0, or -1 where a scale
// overflows a half.
static int put(const Cache *c, const float *x, char *to, char *affine, int D) {
    if (c->bits == 32) {
        memcpy(to, x, D * sizeof *x);
        return 0;
    }
    float low = 0, high = 0, least = 0;
    if (c->bits == 4)
        low = high = x[0];
    for (int i = 0; i < D; i++)
        low = x[i] < low ? x[i] : low, high = x[i] > high ? x[i] : high;
    if (c->bits == 4) { // the minimum is rounded first, and the scale covers what is left
        low = low < -65504 ? -65504 : low > 65504 ? 65504 : low;
        uint16_t half = half_of(low);
        memcpy(affine + 2, &half, 2);
        least = float_of(half);
    }
    int levels = c->bits == 8 ? 127 : 15, middle = c->bits == 8 ? 128 : 0;
    float span = c->bits == 8 ? (high > -low ? high : -low) / levels : (high - least) / levels;
    uint16_t half = half_of(span <= 0 ? 1 : span);
    half = half ? half : 1;
    memcpy(affine, &half, 2);
    float scale = float_of(half);
    if (!(scale <= 65504))
        return -1;
    if (c->bits == 4)
        memset(to, 0, (D + 1) / 2);
    for (int i = 0; i < D; i++) {
        float code = rintf((x[i] - least) / scale) + middle;
        code = code < (c->bits == 8) ? c->bits == 8 : code;
        code = code > levels + middle ? levels + middle : code;
        if (!(code == code))
            return -1;
        if (c->bits == 8)
            ((uint8_t *)to)[i] = (uint8_t)code;
        else
            ((uint8_t *)to)[i / 2] |= (uint8_t)code << 4 * (i % 2);
    }
    return 0;
}

// Read n rows of D numbers as floats, eight codes at a time, into rows of up16(D).
static void decode(const Cache *c, const char *from, const char *affine, int n, int D, float *y) {
    for (int t = 0; t < n; t++, from += c->token_stride, y += up16(D)) {
        if (c->bits == 32) {
            memcpy(y, from, D * sizeof *y);
            continue;
        }
        const uint8_t *code = (const uint8_t *)from;
        const int bits = c->bits, middle = bits == 8 ? 128 : 0;
        uint16_t half[2] = {0};
        memcpy(half, affine + t * c->affine_token, bits == 8 ? 2 : 4);
        float scale = float_of(half[0]), least = float_of(half[1]);
        int i = 0;
        for (; bits == 8 && i + LANES <= D; i += LANES) {
            v8i codes = widened(code + i) - middle;
            store(y + i, __builtin_convertvector(codes, v8f) * scale, LANES);
        }
        for (; bits == 4 && i + LANES <= D; i += LANES) {
            v8u word = (v8u){0} + *(const four_codes *)(code + i / 2);
            v8i codes = (v8i)(word >> (v8u){0, 4, 8, 12, 16, 20, 24, 28} & 15);
            store(y + i, __builtin_convertvector(codes, v8f) * scale + least, LANES);
        }
        for (; i < D; i++) {
            int one = bits == 8 ? code[i] : code[i / 2] >> 4 * (i % 2) & 15;
            y[i] = (one - middle) * scale + least;
        }
    }
}

// ---- 6. Attention -----------------------------------------------------------------------------

// The tokens that the query at `position` sees, counted from 0: sinks, then the rest from `first`.
typedef struct {
    int64_t position, sinks, first, count;
} Sight;

static Sight sight_of(const Cache *c, int64_t position) {
    Sight s = {position, 0, 0, position + 1};
    if (c->window) {
        s.sinks = c->sinks < position + 1 ? c->sinks : position + 1;
        s.first = position + 1 - c->window > c->sinks ? position + 1 - c->window : c->sinks;
        s.first = s.first < position + 1 ? s.first : position + 1;
        s.count = s.sinks + position + 1 - s.first;
    }
    return s;
}

// Seen tokens from the i-th on that lie one behind the other in memory, `most` of them and not more
// than RUN where they do not stay there, as rows of floats: where they are or, where they are codes,
// no multiple of 16 numbers or, in a window, to be rotated to their places, in `buffer`.
static int64_t run_of(const Model *m, const Cache *c, char *base, char *affine, int64_t sequence,
                      int head, Sight s, int64_t i, int64_t most, int keys, float *buffer,
                      const float **rows, int64_t *stride) {
    const int D = m->head_dim, turn = keys && c->window && m->position == ROPE;
    const int moved = c->bits != 32 || turn || D % 16;
    const int32_t *table = c->table + sequence * c->blocks;
    int64_t token = i < s.sinks ? i : s.first + i - s.sinks, slot = slot_of(c, token), where;
    int64_t n = (i < s.sinks ? s.sinks : s.count) - i, b = slot / c->block;
    int64_t left = c->block - slot % c->block; // and blocks that follow in memory as well
    most = moved && most > RUN ? RUN : most, n = n < most ? n : most;
    for (; left < n && c->block_stride == c->block * c->token_stride && b + 1 < c->blocks &&
           table[b + 1] == table[b] + 1; b++)
        left += c->block;
    n = n < left ? n : left;
    const char *from = base + place_of(c, sequence, slot, head, &where);
    *rows = moved ? buffer : (const float *)from;
    *stride = moved ? up16(D) : c->token_stride / (int64_t)sizeof(float);
    if (moved)
        decode(c, from, affine + where, n, D, buffer);
    for (int t = 0; turn && t < n; t++) { // the query stands at 0, sinks as far as the window is long
        int64_t far = c->sinks + c->window - 1;
        far = (s.position < far ? s.position : far) - (token + t);
        const float *row = m->table + (i < s.sinks ? far : s.position - token - t) * D;
        rotate(buffer + t * *stride, row, row + D / 2, -1, D);
    }
    return n;
}

// Keys (n, D) as the rows of a matrix, in panels.
static Matrix as_panels(const float *k, int64_t stride, int n, int D, float *to) {
    Matrix w = {.data = to, .rows = n, .columns = D, .bits = 32};
    w.column = LANES, w.panel = D * LANES;
    for (int t = 0; t < n; t += LANES, k += LANES * stride, to += D * LANES)
        if (n - t >= LANES && D % LANES == 0)
            for (int d = 0; d < D; d += LANES)
                transpose(k + d, stride, to + d * LANES);
        else
            for (int i = 0; i < LANES && t + i < n; i++)
                for (int d = 0; d < D; d++)
                    to[d * LANES + i] = k[i * stride + d];
    return w;
}

// scores[t] = q · k[t] for n keys, D a multiple of 8.
static void dots(const float *q, const float *k, int64_t stride, int n, int D, float *scores) {
    int t = 0;
#ifdef AVX2
    for (; t + 8 <= n; t += 8, k += 8 * stride) { // eight keys, then their sums side by side
        __m256 s[8] = {0};
        for (int d = 0; d < D; d += LANES)
            for (int j = 0; j < 8; j++)
                s[j] = _mm256_fmadd_ps(_mm256_loadu_ps(q + d),
                                       _mm256_loadu_ps(k + j * stride + d), s[j]);
        __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(s[0], s[1]), _mm256_hadd_ps(s[2], s[3]));
        __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(s[4], s[5]), _mm256_hadd_ps(s[6], s[7]));
        __m256 low = _mm256_permute2f128_ps(a, b, 0x20), high = _mm256_permute2f128_ps(a, b, 0x31);
        _mm256_storeu_ps(scores + t, _mm256_add_ps(low, high));
    }
#endif
    for (; t < n; t++, k += stride) {
        v8f sum = {0};
        for (int d = 0; d < D; d += LANES)
            sum += load(q + d) * load(k + d);
        scores[t] = total(sum);
    }
}

// Scores to weights, in place, and zeros behind them up to `room`, a multiple of 8. Returns their sum.
static float soften(float *s, int n, int room, float scale) {
    float most[LANES], sum[LANES] = {0}, high = s[0];
    const int whole = up8(n);
    for (int i = n; i < whole; i++)
        s[i] = s[0];
    memcpy(most, s, sizeof most);
    for (int i = LANES; i < whole; i += LANES)
        for (int l = 0; l < LANES; l++)
            most[l] = s[i + l] > most[l] ? s[i + l] : most[l];
    for (int l = 0; l < LANES; l++)
        high = most[l] > high ? most[l] : high;
    for (int i = 0; i < whole; i++)
        s[i] = exponential((s[i] - high) * scale);
    for (int i = n; i < room; i++)
        s[i] = 0;
    for (int i = 0; i < whole; i += LANES)
        for (int l = 0; l < LANES; l++)
            sum[l] += s[i + l];
    return total(load(sum));
}

// y = softmax(q Kᵀ / √D) V for rows of one sequence from `position` on: keys and values are read once
// for all rows, and for all heads of a group.
static void attend(const Model *m, const Cache *c, int layer, int64_t sequence, int64_t position,
                   int rows, const float *q, float *y, Work *w) {
    const int D = m->head_dim, group = m->heads / m->kv_heads;
    const Sight s = sight_of(c, position + rows - 1);
    const int64_t room = up8(s.count), alone = rows == 1 && D % LANES == 0;
    char *ka = c->bits == 32 ? NULL : c->k_affine[layer];
    char *va = c->bits == 32 ? NULL : c->v_affine[layer];
    for (int h = 0; h < m->kv_heads; h++, q += group * D, y += group * D) {
        const float *from;
        int64_t stride;
        for (int64_t i = 0, n; i < s.count; i += n) {
            n = run_of(m, c, c->k[layer], ka, sequence, h, s, i, alone ? s.count : RUN, 1, w->run,
                       &from, &stride);
            Matrix k = alone ? (Matrix){0} : as_panels(from, stride, n, D, w->keys);
            for (int g = 0; g < group; g++)
                if (alone)
                    dots(q + g * D, from, stride, n, D, w->score + g * room + i);
                else
                    product_fp32(&k, (Input){.x = q + g * D, .stride = w->Q},
                                 w->score + g * rows * room + i, room, rows);
        }
        float sum[group * rows];
        for (int g = 0; g < group; g++)
            for (int r = 0; r < rows; r++)
                sum[g * rows + r] = soften(w->score + (g * rows + r) * room,
                                           s.count - (rows - 1 - r), room, 1 / sqrtf(D));
        for (int64_t i = 0, n; i < s.count; i += n) {
            n = run_of(m, c, c->v[layer], va, sequence, h, s, i, s.count, 0, w->run, &from, &stride);
            Matrix v = {.data = from, .rows = D, .columns = n, .bits = 32};
            v.column = stride, v.panel = LANES;
            for (int g = 0; g < group; g++)
                product_fp32(&v, (Input){.x = w->score + g * rows * room + i, .stride = room,
                                         .more = i > 0}, y + g * D, w->Q, rows);
        }
        for (int g = 0; g < group; g++)
            for (int r = 0; r < rows; r++)
                for (int d = 0; d < D; d++)
                    y[r * w->Q + g * D + d] /= sum[g * rows + r];
    }
}

// ---- 7. The step ------------------------------------------------------------------------------

enum { OK = 0, NOT_FINITE = -1, SCALE_OVERFLOW = -2 };

// The residual block: x += attention(norm(x)); x += ffn(norm(x)).
static int residual(const Model *m, const Cache *c, int layer, const int32_t *sequence,
                    const int32_t *position, int rows, Work *w) {
    const Block *b = m->blocks + layer;
    const int D = m->head_dim, C = m->width;
    for (int r = 0; r < rows; r++)
        normalize(&b->attention_norm, w->x + r * w->C, w->h + r * w->C, C);
    linear(&b->q, w->h, w->C, w->q, w->Q, rows, w);
    linear(&b->k, w->h, w->C, w->k, w->KV, rows, w);
    linear(&b->v, w->h, w->C, w->v, w->KV, rows, w);
    for (int r = 0, n = 1; r < rows; r++, n++) { // n rows look at once
        float *q = w->q + r * w->Q, *k = w->k + r * w->KV, *v = w->v + r * w->KV;
        const float *turn = m->table + (int64_t)position[r] * D;
        int turned = m->position == ROPE && !c->window;
        for (int h = 0; h < m->heads; h++) {
            if (b->q_norm.weight)
                normalize(&b->q_norm, q + h * D, q + h * D, D);
            if (turned)
                rotate(q + h * D, turn, turn + D / 2, 1, D);
        }
        for (int h = 0; h < m->kv_heads; h++) {
            if (b->k_norm.weight)
                normalize(&b->k_norm, k + h * D, k + h * D, D);
            if (turned)
                rotate(k + h * D, turn, turn + D / 2, 1, D);
            int64_t affine, at = place_of(c, sequence[r], slot_of(c, position[r]), h, &affine);
            char *ka = c->bits == 32 ? NULL : c->k_affine[layer] + affine;
            char *va = c->bits == 32 ? NULL : c->v_affine[layer] + affine;
            if (put(c, k + h * D, c->k[layer] + at, ka, D) ||
                put(c, v + h * D, c->v[layer] + at, va, D))
                return SCALE_OVERFLOW;
        }
        // A window is looked at before the next token takes a slot of it.
        if (r + 1 < rows && sequence[r + 1] == sequence[r] && n < TILE && !c->window)
            continue;
        attend(m, c, layer, sequence[r], position[r] - n + 1, n, w->q + (r - n + 1) * w->Q,
               w->a + (r - n + 1) * w->Q, w);
        n = 0;
    }
    linear(&b->out, w->a, w->Q, w->h, w->C, rows, w);
    for (int r = 0; r < rows; r++) {
        float *x = w->x + r * w->C, *h = w->h + r * w->C;
        for (int i = 0; i < C; i++)
            x[i] += h[i];
        normalize(&b->ffn_norm, x, h, C);
    }
    if (m->ffn == SWIGLU)
        linear(&b->gate, w->h, w->C, w->g, w->F, rows, w);
    linear(&b->up, w->h, w->C, w->f, w->F, rows, w);
    for (int r = 0; r < rows; r++)
        activate(m->ffn, w->f + r * w->F, w->g + r * w->F, m->ffn_dim);
    linear(&b->down, w->f, w->F, w->h, w->C, rows, w);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < C; i++)
            w->x[r * w->C + i] += w->h[r * w->C + i];
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
        for (int i = 0; i < m->layers; i++) {
            int bad = residual(m, c, i, sequence + first, position + first, some, &w);
            if (bad)
                return bad;
        }
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
        linear(matrix, w.g, w.K, y + (int64_t)first * matrix->rows, matrix->rows, some, &w);
    }
    return w.broken ? NOT_FINITE : OK;
}

// ---- 8. The choice ----------------------------------------------------------------------------

// Order of ids by logit, the lower id first among equals: a heap that gives the best one by one.
static int before(const float *x, int32_t a, int32_t b) {
    return x[a] > x[b] || (x[a] == x[b] && a < b);
}

static void sink(const float *x, int32_t *heap, int i, int n) {
    for (int32_t id = heap[i]; 2 * i + 1 < n;) {
        int child = 2 * i + 1;
        child += child + 1 < n && before(x, heap[child + 1], heap[child]);
        if (!before(x, heap[child], id))
            return;
        heap[i] = heap[child], heap[child] = id, i = child;
    }
}

// The first of the largest; 0 where one is no number.
static int32_t best_of(const float *x, int n) {
    float most[LANES], high = x[0];
    int i = 0;
    for (int l = 0; l < LANES; l++)
        most[l] = x[0];
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            most[l] = x[i + l] > most[l] ? x[i + l] : most[l];
    for (; i < n; i++)
        high = x[i] > high ? x[i] : high;
    for (int l = 0; l < LANES; l++)
        high = most[l] > high ? most[l] : high;
    for (i = 0; i < n; i++)
        if (x[i] == high)
            return i;
    return 0;
}

// The next token from logits x (V), which it changes; `seen` marks tokens already there; `noise` is
// exponential, and the token the winner of the race p / E. -1 where there is no distribution.
static int32_t choose(float *x, int V, const Sampling *s, const uint8_t *seen, const float *noise,
                      int32_t *heap) {
    for (int i = 0; s->penalty != 1 && i < V; i++)
        if (seen[i])
            x[i] = x[i] > 0 ? x[i] / s->penalty : x[i] * s->penalty;
    if (s->temperature == 0)
        return best_of(x, V);
    float most = x[best_of(x, V)], sum = 0;
    for (int i = 0; i < V; i++) {
        if (!(x[i] - most <= 0)) // no number, or infinite
            return -1;
        x[i] = (x[i] - most) / s->temperature;
    }
    int keep = s->top_k && s->top_k < V ? s->top_k : V;
    if (keep == V && s->top_p >= 1) {
        for (int i = 0; i < V; i++)
            x[i] = exponential(x[i]) / noise[i];
        return best_of(x, V);
    }
    for (int i = 0; i < V; i++)
        heap[i] = i;
    for (int i = V / 2; i-- > 0;)
        sink(x, heap, i, V);
    for (int i = 0; keep == V && i < V; i++)
        sum += exponential(x[i]);
    for (int n = V; n > V - keep && keep < V; n--) { // the best go to the end, in order
        int32_t id = heap[0];
        sum += exponential(x[id]);
        heap[0] = heap[n - 1], heap[n - 1] = id;
        sink(x, heap, 0, n - 1);
    }
    float passed = 0, won = -1;
    int32_t winner = -1;
    for (int i = 0, n = V; i < keep && (passed < s->top_p || s->top_p >= 1); i++, n--) {
        int32_t id = keep < V ? heap[V - 1 - i] : heap[0];
        float p = exponential(x[id]) / sum;
        passed += p;
        if (p / noise[id] > won || (p / noise[id] == won && id < winner))
            won = p / noise[id], winner = id;
        if (keep == V) {
            heap[0] = heap[n - 1];
            sink(x, heap, 0, n - 1);
        }
    }
    return winner;
}

// ---- 9. Generation ----------------------------------------------------------------------------

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
            bad = engine_step(m, c, token, sequence, position, rows, NULL, arena, tokens);
            if (bad)
                return bad;
            rows = 0;
        }
    }
    for (int i = 0; i < steps; i++) {
        rows = 0;
        for (int b = 0; b < B; b++) {
            int64_t at = length[b] + i, *next = ids + b * stride + at;
            *next = next[-1];
            if (!done[b])
                token[rows] = *next, sequence[rows] = b, position[rows++] = at - 1;
        }
        if (rows == 0)
            return i;
        bad = engine_step(m, c, token, sequence, position, rows, w.hidden, arena, tokens);
        bad = bad ? bad : engine_multiply(m, &m->head, w.hidden, rows, w.logits, arena);
        if (bad)
            return bad;
        for (int r = 0; r < rows; r++) {
            int b = sequence[r];
            const float *e = noise ? noise + (i * (int64_t)B + b) * V : NULL;
            int32_t next = choose(w.logits + r * V, V, s, seen ? seen + b * V : NULL, e, w.heap);
            if (next < 0)
                return NOT_FINITE;
            if (seen)
                seen[b * V + next] = 1;
            ids[b * stride + length[b] + i] = next;
            for (int j = 0; j < stops; j++)
                done[b] |= next == stop[j];
        }
    }
    return steps;
}
