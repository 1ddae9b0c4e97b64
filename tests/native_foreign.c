// engine.c as a program, for a processor that runs no Python here: problems come in, results go out.
//
// First it says on a line which instructions it has. A problem is two numbers of 64 bits, the bytes
// of an image and how many pointers are in it; the image, which begins with a Problem; and where its
// pointers are, each the distance from the image's start to what it points to.

#include "engine.c"

#include <stdio.h>
#include <stdlib.h>

typedef struct {
    const Model *model;
    const Matrix *matrix; // y = matrix x, or, where that is NULL, the logits of a step
    const float *x;
    const Cache *cache;
    const int32_t *token, *sequence, *position;
    int64_t rows, tokens;
} Problem;

static void *taken(int64_t bytes) {
    char *all = malloc(bytes);
    return fread(all, 1, bytes, stdin) == (size_t)bytes ? all : (exit(1), NULL);
}

static int solve(const Problem *p) {
    const Matrix *last = p->matrix ? p->matrix : &p->model->head;
    float *hidden = calloc(p->rows * p->model->width, sizeof *hidden);
    float *y = calloc(p->rows * last->rows, sizeof *y);
    float *arena = calloc(engine_arena(p->model, p->tokens, 0), sizeof *arena);
    int bad = p->matrix ? OK : engine_step(p->model, p->cache, p->token, p->sequence, p->position,
                                           p->rows, hidden, arena, p->tokens);
    if (!bad) bad = engine_multiply(p->model, last, p->matrix ? p->x : hidden, p->rows, y, arena);
    if (!bad) fwrite(y, sizeof *y, p->rows * last->rows, stdout);
    return bad;
}

int main(void) {
    printf("%s\n", engine_instructions());
    for (int64_t size[2]; fread(size, sizeof size, 1, stdin) == 1;) {
        char *image = taken(size[0]);
        const int64_t *pointers = taken(size[1] * sizeof *pointers);
        for (int64_t i = 0, to; i < size[1]; i++) {
            memcpy(&to, image + pointers[i], sizeof to);
            char *there = image + to;
            memcpy(image + pointers[i], &there, sizeof there);
        }
        if (solve((const Problem *)image)) return 1;
    }
    return 0;
}
