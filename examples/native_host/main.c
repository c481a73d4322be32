/* Compresses a drawn matrix in three ways, and prints the bits per weight and the signal-to-noise ratio of each. */
#include <corepress.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 256, COLUMNS = 512, COUNT = ROWS * COLUMNS };

static void require_done(corepress_status status) {
    if (status == COREPRESS_OK) return;
    fprintf(stderr, "%s\n", corepress_last_error());
    exit(1);
}

static void* allocate(size_t size) {
    void* memory = malloc(size);
    if (memory == NULL) abort();
    return memory;
}

static void tell(const char* name, double bytes, const float* weights, const float* decoded,
                 const corepress_shape* shape) {
    corepress_errors errors;
    require_done(corepress_compare(weights, decoded, shape, 0, &errors));
    const double ratio = errors.squared_first / errors.squared_error;
    printf("%-24s %5.2f bits per weight %6.2f dB\n", name, 8 * bytes / COUNT, 10 * log10(ratio));
}

/* The sum of four uniform numbers is bell-shaped, as trained weights are. */
static void draw(float* weights) {
    unsigned long long state = 88172645463325252ull;
    for (int i = 0; i < COUNT; ++i) {
        weights[i] = 0;
        for (int j = 0; j < 4; ++j) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            weights[i] += (float)(state >> 40) / (float)(1 << 24) - 0.5f;
        }
    }
}

int main(void) {
    const int64_t axes[] = {ROWS, COLUMNS};
    const corepress_shape shape = {COREPRESS_FLOAT32, 2, axes};
    float *weights = allocate(sizeof(float) * COUNT), *decoded = allocate(sizeof(float) * COUNT);
    draw(weights);
    printf("corepress %s (%s)\n", corepress_version(), corepress_simd_level());

    /* 4 bits per weight, a table for every 16 rows. */
    const corepress_groups groups = {0, 16};
    const int64_t tables = corepress_table_count(&shape, groups);
    float* lut = allocate(sizeof(float) * (size_t)tables * 16);
    uint8_t* indices = allocate((size_t)corepress_packed_size(COUNT, 4));
    require_done(corepress_palettize(weights, &shape, 4, COREPRESS_KMEANS, groups, NULL, 0, lut, indices));
    require_done(corepress_depalettize(indices, lut, &shape, 4, groups, 0, decoded));
    tell("palettes of 4 bits", (double)corepress_packed_size(COUNT, 4) + 64.0 * (double)tables, weights, decoded,
         &shape);

    /* 8 bits per weight, a scale for each row. */
    const int64_t block_size[] = {1, 0};
    const int64_t blocks = corepress_block_count(&shape, block_size);
    float* scale = allocate(sizeof(float) * (size_t)blocks);
    uint8_t *zero_point = allocate((size_t)blocks), *data = allocate(COUNT);
    require_done(corepress_quantize(weights, &shape, COREPRESS_INT8, COREPRESS_LINEAR_SYMMETRIC, block_size, 0, NULL, 0,
                                    scale, zero_point, data));
    require_done(corepress_dequantize(data, scale, NULL, &shape, COREPRESS_INT8, block_size, 0, decoded));
    tell("int8 with a scale a row", COUNT + 4.0 * (double)blocks, weights, decoded, &shape);

    /* Half of the weights, and a bit each for where they are. */
    uint8_t* mask = allocate((size_t)corepress_packed_size(COUNT, 1));
    float* values = allocate(sizeof(float) * COUNT);
    int64_t kept;
    require_done(corepress_prune_to_sparsity(weights, &shape, 0.5, 0, mask, values, &kept));
    require_done(corepress_decode_sparse(values, mask, &shape, 0, decoded));
    tell("half of the weights", COUNT / 8.0 + 4.0 * (double)kept, weights, decoded, &shape);

    free(values);
    free(mask);
    free(data);
    free(zero_point);
    free(scale);
    free(indices);
    free(lut);
    free(decoded);
    free(weights);
    return 0;
}
