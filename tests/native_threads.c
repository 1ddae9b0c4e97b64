// A program of its own, for a sanitizer of threads: what three threads compute against what one
// does, in every format, of two callers at once and of a child. Prints whether it is the same.

#include "engine.c" // its folder is given by -I

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { C = 48, H = 3, F = 104, V = 100, T = 20, ARENA = 1 << 19 };
static float floats[F * 2 * F], ones[F], arenas[2][ARENA], found[2][2][T * V];
static uint32_t words[F * F];
static char keys[2][4 * T * C], values[2][4 * T * C];

static Matrix matrix(int rows, int columns, int bits) {
    const int n = bits == 32 ? columns : columns * bits / 32;
    Matrix w = {.data = floats, .column = 8, .panel = 8 * columns, .rows = rows, .bits = bits};
    w.columns = columns, w.group = columns, w.groups = 1, w.words = n, w.each = n, w.scale = ones;
    if (bits != 32) w.data = words, w.act_bits = 8, w.act_symmetric = 1;
    w.middle = bits == 4 ? 8 : 0;
    return w;
}

static int run(int caller, int bits, int threads) {
    const Norm norm = {ones, NULL, 1e-5f};
    const Matrix square = matrix(C, C, bits);
    const Block block = {.q = square, .k = square, .v = square, .out = square,
        .up = matrix(F, C, bits), .down = matrix(C, F, bits), .attention_norm = norm,
        .ffn_norm = norm};
    const Model m = {.blocks = &block, .embedding = matrix(V, C, 32), .head = matrix(V, C, bits),
        .norm = norm, .grain = 1, .layers = 1, .heads = H, .kv_heads = H, .head_dim = C / H,
        .width = C, .ffn_dim = F, .vocab = V, .position = NONE, .threads = threads};
    char *k = keys[caller], *v = values[caller];
    const int32_t zero[T] = {0};
    const Cache cache = {&k, &v, &k, &v, zero, .token_stride = 4 * C, .head_stride = 4 * C / H,
        .bits = 32, .block = T, .blocks = 1};
    float hidden[T * C], *logits = found[caller][threads > 1];
    int32_t token[T], place[T];
    for (int t = 0; t < T; t++) token[t] = t * 7 % V, place[t] = t;
    return engine_arena(&m, T, 0) > ARENA ||
           engine_step(&m, &cache, token, zero, place, T, hidden, arenas[caller], T) ||
           engine_multiply(&m, &m.head, hidden, T, logits, arenas[caller]);
}

static void *wrong(void *caller) { // NULL where threads change nothing
    const int who = (int)(intptr_t)caller;
    for (int i = 0; i < 60; i++) {
        const int bits = i % 3 == 0 ? 32 : i % 3 == 1 ? 8 : 4;
        memset(found[who], i, sizeof found[who]);
        if (run(who, bits, 1) || run(who, bits, 3)) return "an error";
        if (memcmp(found[who][0], found[who][1], sizeof found[who][0])) return "other bits";
    }
    return NULL;
}

int main(void) {
    uint32_t state = 1;
    void *first, *second = NULL;
    pthread_t thread;
    int status = 1;
    for (int i = 0; i < F * 2 * F; i++)
        floats[i] = (state = state * 1664525u + 1013904223u) / 4294967296.0f - 0.5f;
    for (int i = 0; i < F * F; i++) words[i] = state = state * 1664525u + 1013904223u;
    for (int i = 0; i < F; i++) ones[i] = 1;
    pthread_create(&thread, NULL, wrong, (void *)1);
    first = wrong(0), pthread_join(thread, &second);
    const pid_t child = fork();
    if (child == 0) _exit(wrong(0) != NULL);
    waitpid(child, &status, 0);
    puts(first ? (char *)first : second ? (char *)second : status ? "a child's differ" : "the same");
    return 0;
}
