/* A long call of the C interface that ends when SIGINT arrives; see interrupts.py, which builds and runs this.
 *
 *     interrupts JOB ROWS
 *
 * Prints "ready" once the weights are drawn, and at the end "interrupted" or "finished". */
#include <corepress.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 4096, CLUSTER_DIM = 4, GROUP = 16, BLOCK = 32 };

static volatile sig_atomic_t arrived = 0;

static void note(int number) { arrived = number; }

static int has_arrived(void* context) {
    (void)context;
    return arrived != 0;
}

static void* allocate(size_t size) {
    void* memory = malloc(size);
    if (memory == NULL) abort();
    return memory;
}

/* The sum of four uniform numbers is bell-shaped, as trained weights are. */
static float draw(void) {
    static unsigned long long state = 88172645463325252ull;
    float sum = 0;
    for (int i = 0; i < 4; ++i) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        sum += (float)(state >> 40) / (float)(1 << 24) - 0.5f;
    }
    return sum;
}

static corepress_status run(const char* job, const float* weights, int64_t rows, void* out, uint8_t* codes) {
    const int64_t axes[] = {rows, COLUMNS}, blocks[] = {1, BLOCK};
    const corepress_shape shape = {COREPRESS_FLOAT32, 2, axes};
    const corepress_groups whole = {0, 0}, groups = {0, GROUP};
    int64_t kept;
    if (strcmp(job, "palettize 4 bits") == 0)
        return corepress_palettize(weights, &shape, 4, COREPRESS_KMEANS, whole, NULL, 0, out, codes);
    if (strcmp(job, "palettize 8 bits") == 0)
        return corepress_palettize(weights, &shape, 8, COREPRESS_KMEANS, whole, NULL, 0, out, codes);
    if (strcmp(job, "palettize 4 bits, groups of 16") == 0)
        return corepress_palettize(weights, &shape, 4, COREPRESS_KMEANS, groups, NULL, 0, out, codes);
    if (strcmp(job, "palettize 8 bits, vectors of 4") == 0)
        return corepress_palettize_vectors(weights, &shape, 8, CLUSTER_DIM, whole, NULL, 0, out, codes);
    if (strcmp(job, "quantize int4 blocks, searched") == 0)
        return corepress_quantize(weights, &shape, COREPRESS_INT4, COREPRESS_LINEAR_SYMMETRIC, blocks, 1, NULL, 0, out,
                                  (uint8_t*)out + sizeof(float) * (size_t)(rows * COLUMNS / BLOCK), codes);
    if (strcmp(job, "quantize int4, searched") == 0)
        return corepress_quantize(weights, &shape, COREPRESS_INT4, COREPRESS_LINEAR, NULL, 1, NULL, 0, out,
                                  (uint8_t*)out + sizeof(float), codes);
    if (strcmp(job, "prune half") == 0)
        return corepress_prune_to_sparsity(weights, &shape, 0.5, 0, codes, out, &kept);
    if (strcmp(job, "prune 2 of 4") == 0) return corepress_prune_n_m(weights, &shape, 1, 2, 4, 0, codes, out, &kept);
    if (strcmp(job, "prune blocks of 4") == 0)
        return corepress_prune_blocks(weights, &shape, 0, 4, 0.5, 0, codes, out, &kept);
    if (strcmp(job, "kmeans1d") == 0) {
        const int64_t count = rows * COLUMNS / 2; /* as many numbers of twice the size */
        double* values = allocate(sizeof(double) * (size_t)count);
        int32_t* found = allocate(sizeof(int32_t) * (size_t)count);
        double centroids[256], inertia;
        for (int64_t i = 0; i < count; ++i) values[i] = weights[i];
        const corepress_status status = corepress_kmeans1d(values, NULL, count, 256, found, centroids, &inertia);
        free(found);
        free(values);
        return status;
    }
    fprintf(stderr, "no such job: %s\n", job);
    exit(2);
}

int main(int count, char** arguments) {
    if (count != 3) return 2;
    const int64_t rows = strtoll(arguments[2], NULL, 10), size = rows * COLUMNS;
    float* weights = allocate(sizeof(float) * (size_t)size);
    void* out = allocate(sizeof(float) * (size_t)size);
    uint8_t* codes = allocate((size_t)size);
    for (int64_t i = 0; i < size; ++i) weights[i] = draw();
    signal(SIGINT, note);
    corepress_set_cancel(has_arrived, NULL);
    puts("ready");
    fflush(stdout);
    const corepress_status status = run(arguments[1], weights, rows, out, codes);
    if (status != COREPRESS_OK && status != COREPRESS_CANCELLED) {
        fprintf(stderr, "%s\n", corepress_last_error());
        return 1;
    }
    puts(status == COREPRESS_OK ? "finished" : "interrupted");
    return 0;
}
