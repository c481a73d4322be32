/* The kernels of corepress for hosts that are not Python: C, and whatever can call it.
 *
 * A tensor is row-major. Sizes count elements. Codes are packed least significant bit first, without gaps between
 * rows: corepress_packed_size() bytes. The caller owns all memory, and input is never written to. Everything may be
 * called from several threads at once; a call uses `num_threads` threads, 0 for all CPUs of the process (or
 * COREPRESS_NUM_THREADS), and gives the same bytes for any number. Results of a call that fails have no meaning.
 */
#ifndef COREPRESS_H_
#define COREPRESS_H_

#include <stdint.h>

#if defined(_WIN32)
#define COREPRESS_API
#else
#define COREPRESS_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    COREPRESS_OK = 0,
    COREPRESS_INVALID_ARGUMENT = 1,
    COREPRESS_NON_FINITE = 2, /* a weight is NaN or infinite */
    COREPRESS_OUT_OF_MEMORY = 3,
    COREPRESS_FAILED = 4
} corepress_status;

/* Of weights: 2, 2 and 4 bytes each, in the machine's byte order. */
typedef enum { COREPRESS_FLOAT16 = 0, COREPRESS_BFLOAT16 = 1, COREPRESS_FLOAT32 = 2 } corepress_float;

/* Of quantized weights. */
typedef enum { COREPRESS_INT8 = 0, COREPRESS_UINT8 = 1, COREPRESS_INT4 = 2, COREPRESS_UINT4 = 3 } corepress_integer;

typedef enum { COREPRESS_KMEANS = 0, COREPRESS_UNIFORM = 1 } corepress_palette_mode;
typedef enum { COREPRESS_LINEAR_SYMMETRIC = 0, COREPRESS_LINEAR = 1 } corepress_quantize_mode;

typedef struct {
    corepress_float dtype;
    int rank;             /* 0 to 32 */
    const int64_t* shape; /* [rank] */
} corepress_shape;

/* How entries of `axis` share tables: `size` consecutive ones, which must divide the axis; 0: one for the tensor. */
typedef struct {
    int axis; /* from 0 on */
    int64_t size;
} corepress_groups;

COREPRESS_API const char* corepress_version(void);

/* Why the last call of this thread failed: function, value, rule. */
COREPRESS_API const char* corepress_last_error(void);

/* The instruction set in use: "baseline", "avx2" or "avx512". */
COREPRESS_API const char* corepress_simd_level(void);

COREPRESS_API int64_t corepress_packed_size(int64_t count, int nbits);

/* --- Palettes ------------------------------------------------------------------------------------------------- */

/* Tables that a tensor gets; -1 if the groups do not fit it. */
COREPRESS_API int64_t corepress_table_count(const corepress_shape* shape, corepress_groups groups);

/* Tables of 2^nbits ascending values and, for each weight, the index of the nearest, the lower one if two are equally
 * near. COREPRESS_KMEANS: the smallest squared error of all tables of that size, up to the rounding of its entries.
 *
 * nbits       1, 2, 3, 4, 6 or 8
 * importance  of each weight's squared error, finite and not negative, in the tensor's shape; or NULL for all alike
 * lut         [tables, 2^nbits] in the weights' dtype
 * indices     [packed_size(weights, nbits)]
 */
COREPRESS_API corepress_status corepress_palettize(const void* weights, const corepress_shape* shape, int nbits,
                                                   corepress_palette_mode mode, corepress_groups groups,
                                                   const float* importance, int num_threads, void* lut,
                                                   uint8_t* indices);

COREPRESS_API corepress_status corepress_depalettize(const uint8_t* indices, const void* lut,
                                                     const corepress_shape* shape, int nbits, corepress_groups groups,
                                                     int num_threads, void* weights);

/* --- Affine quantization -------------------------------------------------------------------------------------- */

/* Blocks that a tensor is divided into; -1 if block_size does not fit it.
 * block_size  [rank] entries of each axis that share a scale, which must divide the axis; 0: all. NULL: one scale. */
COREPRESS_API int64_t corepress_block_count(const corepress_shape* shape, const int64_t* block_size);

/* weight = scale * (code - zero_point), by coremltools' rules; its errors with tiny and huge scales are avoided.
 *
 * search_scale  not 0: look for the scale, and zero point, of least squared error
 * importance    as above, used with search_scale; or NULL
 * scale         [blocks] in the weights' dtype
 * zero_point    [blocks] a byte each, signed as the codes
 * data          [packed_size(weights, 8 or 4)]
 */
COREPRESS_API corepress_status corepress_quantize(const void* weights, const corepress_shape* shape,
                                                  corepress_integer dtype, corepress_quantize_mode mode,
                                                  const int64_t* block_size, int search_scale, const float* importance,
                                                  int num_threads, void* scale, uint8_t* zero_point, uint8_t* data);

/* zero_point may be NULL: all 0. */
COREPRESS_API corepress_status corepress_dequantize(const uint8_t* data, const void* scale, const uint8_t* zero_point,
                                                    const corepress_shape* shape, corepress_integer dtype,
                                                    const int64_t* block_size, int num_threads, void* weights);

/* --- Pruning, and the sparse form: a mask of one bit per weight, and the weights whose bit is 1 ------------------ */

/* Bit 0 where |w| <= a[floor((n - 1) * sparsity)], `a` the sorted magnitudes of the n weights: 0 keeps all but zeros, 1
 * nothing. This and the next two write
 *
 * mask    [packed_size(weights, 1)]
 * values  the weights whose bit is 1, in order; it must have room for all weights
 * kept    how many these are
 */
COREPRESS_API corepress_status corepress_prune_to_sparsity(const void* weights, const corepress_shape* shape,
                                                           double sparsity, int num_threads, uint8_t* mask,
                                                           void* values, int64_t* kept);

/* Bit 0 where |w| <= threshold. */
COREPRESS_API corepress_status corepress_prune_below(const void* weights, const corepress_shape* shape,
                                                     double threshold, int num_threads, uint8_t* mask, void* values,
                                                     int64_t* kept);

/* Bit 0 for the n smallest magnitudes of every m consecutive weights along an axis, of equal ones the first, and for
 * zeros. An axis that m does not divide ends as if zeros followed. m is at most 1024. */
COREPRESS_API corepress_status corepress_prune_n_m(const void* weights, const corepress_shape* shape, int axis,
                                                   int64_t n, int64_t m, int num_threads, uint8_t* mask, void* values,
                                                   int64_t* kept);

/* values: as many weights as the mask has ones, in order. */
COREPRESS_API corepress_status corepress_encode_sparse(const void* weights, const corepress_shape* shape,
                                                       const uint8_t* mask, int num_threads, void* values);

COREPRESS_API corepress_status corepress_decode_sparse(const void* values, const uint8_t* mask,
                                                       const corepress_shape* shape, int num_threads, void* weights);

/* --- Parts ------------------------------------------------------------------------------------------------------ */

/* Codes of a byte each to nbits, 1 to 8, and back. packed: [packed_size(count, nbits)]. */
COREPRESS_API corepress_status corepress_pack_bits(const uint8_t* codes, int64_t count, int nbits, int num_threads,
                                                   uint8_t* packed);
COREPRESS_API corepress_status corepress_unpack_bits(const uint8_t* packed, int64_t count, int nbits, int num_threads,
                                                     uint8_t* codes);

/* The optimal k-means of numbers on a line. weights: of each number, not negative, some positive; or NULL for 1.
 * codes: [count], ascending with the values; centroids: [k], those not needed repeat the largest; inertia: the
 * weighted sum of squared distances. */
COREPRESS_API corepress_status corepress_kmeans1d(const double* values, const double* weights, int64_t count, int k,
                                                  int32_t* codes, double* centroids, double* inertia);

/* Sums of squared differences of two tensors, and of squares of the first. */
COREPRESS_API corepress_status corepress_squared_error(const void* first, const void* second,
                                                       const corepress_shape* shape, int num_threads,
                                                       double* squared_error, double* squared_first);

#ifdef __cplusplus
}
#endif

#endif
