/* The kernels of corepress for hosts that are not Python: C, and whatever can call it.
 *
 * Tensors are row-major and contiguous. Sizes count elements unless they say bytes. Arrays are described as
 * [their, shape]; `weights` in a shape stands for the number of elements of the tensor.
 *
 * Packed codes  form one stream of bits in the tensor's order, without gaps between rows: corepress_packed_size()
 * bytes. The least significant bit comes first, as in ML programs: element i has the bits [i * nbits, (i + 1) * nbits),
 * where bit p is bit p % 8 of byte p / 8. The bits after the last element are 0. Masks are packed codes of 1 bit.
 * Memory        belongs to the caller, who allocates results too; only strings belong to the library. Input is never
 *               written to, and must not overlap output unless a function says so. Floats and doubles have the
 *               machine's byte order, and stand at multiples of their size. Nothing is kept between calls.
 *               If input changes during a call, as a mapped file can, the result has no meaning, but no memory other
 *               than that of the arrays is read or written, and the call ends. A mask's ones are those it has when the
 *               call begins.
 * Threads       Every function may be called from several threads at once. A call uses up to `num_threads` threads, 0
 *               for the environment's COREPRESS_NUM_THREADS or else all CPUs of the process, and joins them before it
 *               returns.
 * Results       are the same bytes for any number of threads, on every machine and instruction set, and those that the
 *               Python package gives. The environment's COREPRESS_SIMD forces an instruction set.
 * Errors        Functions return a status, and none throws or ends the process. What they wrote has no meaning unless
 *               the status is COREPRESS_OK. corepress_last_error() tells more. A pointer that is needed and NULL is
 *               COREPRESS_INVALID_ARGUMENT; other wrong pointers cannot be found out.
 * Cancelling    A thread can set a function that its calls ask now and then whether they are to end.
 * Stability     Symbols may change with the minor version until 1.0; the CMake package asks for the same.
 */
#ifndef COREPRESS_H_
#define COREPRESS_H_

#include <stdint.h>

#if defined(_WIN32) && defined(COREPRESS_BUILDING)
#define COREPRESS_API __declspec(dllexport)
#elif defined(_WIN32)
#define COREPRESS_API __declspec(dllimport)
#else
#define COREPRESS_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    COREPRESS_OK = 0,
    COREPRESS_INVALID_ARGUMENT = 1,
    COREPRESS_NON_FINITE = 2, /* a value to compress is NaN or infinite */
    COREPRESS_OUT_OF_MEMORY = 3,
    COREPRESS_FAILED = 4,
    COREPRESS_CANCELLED = 5 /* by the function that corepress_set_cancel() was given */
} corepress_status;

/* Of weights: 2, 2 and 4 bytes each. */
typedef enum { COREPRESS_FLOAT16 = 0, COREPRESS_BFLOAT16 = 1, COREPRESS_FLOAT32 = 2 } corepress_float;

/* Of quantized weights: integers of 8, 8, 4, 4, 2 and 2 bits, signed ones in two's complement; and floats of 8, 8 and 4
 * bits, whose codes are their bits. Core ML has no integers of 2 bits and no floats. */
typedef enum {
    COREPRESS_INT8 = 0,
    COREPRESS_UINT8 = 1,
    COREPRESS_INT4 = 2,
    COREPRESS_UINT4 = 3,
    COREPRESS_INT2 = 4,
    COREPRESS_UINT2 = 5,
    COREPRESS_FLOAT8_E4M3FN = 6,
    COREPRESS_FLOAT8_E5M2 = 7,
    COREPRESS_FLOAT4_E2M1FN = 8
} corepress_code;

/* How tables are found. KMEANS: the smallest squared error of all tables of that size, up to the rounding of entries to
 * the weights' dtype. UNIFORM: even steps from the smallest to the largest weight, as coremltools computes them.
 * UNIQUE: the distinct values, which loses nothing but the sign of zeros. */
typedef enum { COREPRESS_KMEANS = 0, COREPRESS_UNIFORM = 1, COREPRESS_UNIQUE = 2 } corepress_palette_mode;

/* LINEAR_SYMMETRIC: ranges from -a to a, no zero point of signed codes and the middle one of unsigned codes. LINEAR:
 * ranges from the smallest to the largest weight, widened to hold 0, and zero points. */
typedef enum { COREPRESS_LINEAR_SYMMETRIC = 0, COREPRESS_LINEAR = 1 } corepress_quantize_mode;

/* Which bit of packed codes comes first: the least significant in ML programs, the most significant in `.mlmodel`
 * neural networks. */
typedef enum { COREPRESS_LSB_FIRST = 0, COREPRESS_MSB_FIRST = 1 } corepress_bit_order;

typedef struct {
    corepress_float dtype;
    int rank;             /* 0 to 32 */
    const int64_t* shape; /* [rank], not negative; may be NULL where rank is 0 */
} corepress_shape;

/* Channels that share a table: `size` consecutive entries of `axis`, which must divide it; size 0: all of the tensor
 * share one. Of vectors, `axis` is the one that they stand along, also where size is 0. */
typedef struct {
    int axis; /* 0 to rank - 1 */
    int64_t size;
} corepress_groups;

COREPRESS_API const char* corepress_version(void);

/* Why the last call of the calling thread that failed did: function, value, rule, as "corepress_quantize: blocks of 4
 * do not divide axis 1 of length 10". Empty before. Valid until the thread's next failure. */
COREPRESS_API const char* corepress_last_error(void);

/* Whether a call is to end: not zero if so. It must not call functions of this library. */
typedef int (*corepress_cancel)(void* context);

/* Have the calls that this thread makes from now on ask `cancel(context)`, some 25 times a second and on this thread,
 * whether they are to end; they then return COREPRESS_CANCELLED, mostly within a few hundredths of a second. NULL:
 * never.
 */
COREPRESS_API void corepress_set_cancel(corepress_cancel cancel, void* context);

/* The instruction set in use: "baseline", "avx2" or "avx512". */
COREPRESS_API const char* corepress_simd_level(void);

/* Bytes of `count` packed codes. */
COREPRESS_API int64_t corepress_packed_size(int64_t count, int nbits);

/* --- Palettes ----------------------------------------------------------------------------------------------------- */

/* Tables that a tensor gets, also of vectors; -1 if the groups do not fit it. They follow each other in the order of
 * the groups along the axis. */
COREPRESS_API int64_t corepress_table_count(const corepress_shape* shape, corepress_groups groups);

/* Tables of 2^nbits ascending values and, for each weight, the index of the nearest entry, the lower one if two are
 * equally near. Entries that are not needed repeat the largest.
 *
 * weights     [shape] of its dtype, at least one; all finite, else COREPRESS_NON_FINITE
 * nbits       1, 2, 3, 4, 6 or 8; COREPRESS_UNIQUE fails where a group has more than 2^nbits distinct values
 * importance  [shape], how much each weight's squared error counts, finite and not negative, for COREPRESS_KMEANS; only
 *             ratios matter, and a group without any counts as if all were alike. NULL: all alike
 * lut         out, [tables, 2^nbits] of the weights' dtype
 * indices     out, packed codes: corepress_packed_size(weights, nbits) bytes */
COREPRESS_API corepress_status corepress_palettize(const void* weights, const corepress_shape* shape, int nbits,
                                                   corepress_palette_mode mode, corepress_groups groups,
                                                   const float* importance, int num_threads, void* lut,
                                                   uint8_t* indices);

/* The indices of the nearest entries of given tables, the lower ones if two are equally near.
 *
 * lut      [tables, 2^nbits] of the weights' dtype: finite, ascending within each table
 * indices  out, as above */
COREPRESS_API corepress_status corepress_assign(const void* weights, const corepress_shape* shape, int nbits,
                                                const void* lut, corepress_groups groups, int num_threads,
                                                uint8_t* indices);

/* The entries that indices stand for.
 *
 * weights  out, [shape] of its dtype, which is the lut's */
COREPRESS_API corepress_status corepress_depalettize(const uint8_t* indices, const void* lut,
                                                     const corepress_shape* shape, int nbits, corepress_groups groups,
                                                     int num_threads, void* weights);

/* Tables of vectors: an index stands for `cluster_dim` consecutive entries of groups.axis, which must divide the axis
 * and groups.size. A good table, for which no optimum is known; a group of no more distinct vectors than entries loses
 * nothing.
 *
 * importance  as above, of each weight
 * lut         out, [tables, 2^nbits, cluster_dim] of the weights' dtype; entries ascend component by component
 * indices     out, packed codes in the order of the tensor with the axis divided by cluster_dim:
 *             corepress_packed_size(weights / cluster_dim, nbits) bytes */
COREPRESS_API corepress_status corepress_palettize_vectors(const void* weights, const corepress_shape* shape, int nbits,
                                                           int64_t cluster_dim, corepress_groups groups,
                                                           const float* importance, int num_threads, void* lut,
                                                           uint8_t* indices);

/* shape: of the weights, as above. */
COREPRESS_API corepress_status corepress_depalettize_vectors(const uint8_t* indices, const void* lut,
                                                             const corepress_shape* shape, int nbits,
                                                             int64_t cluster_dim, corepress_groups groups,
                                                             int num_threads, void* weights);

/* Per-channel scales: each entry of an axis divided by its largest magnitude, by 1 if that is 0. What palettizes the
 * quotients is one of the functions above.
 *
 * scale      out, [length of the axis] of the weights' dtype
 * quotients  out, [shape] of the weights' dtype, rounded to it once; may be `weights` */
COREPRESS_API corepress_status corepress_normalize(const void* weights, const corepress_shape* shape, int axis,
                                                   int num_threads, void* scale, void* quotients);

/* Each entry of an axis times its scale, rounded once; `weights` may be `quotients`. */
COREPRESS_API corepress_status corepress_denormalize(const void* quotients, const corepress_shape* shape, int axis,
                                                     const void* scale, int num_threads, void* weights);

/* --- Affine quantization ------------------------------------------------------------------------------------------ */

/* Blocks that a tensor is divided into; -1 if block_size does not fit it.
 *
 * block_size  [rank] entries of each axis that share a scale, which must divide the axis; 0: all of the axis. NULL: one
 *             scale for the tensor */
COREPRESS_API int64_t corepress_block_count(const corepress_shape* shape, const int64_t* block_size);

/* weight = scale * (code - zero_point). Scales are coremltools', in double precision, so that float16 neither overflows
 * nor loses digits.
 *
 * weights       [shape] of its dtype, at least one; all finite, else COREPRESS_NON_FINITE
 * search_scale  0: the scale of the range of values; 1: the scale, and zero point, of least squared error
 * importance    [shape] as for palettes, where search_scale is 1; NULL: all alike
 * scale         out, [blocks] of the weights' dtype, in row-major order of the blocks
 * zero_point    out, [blocks] a byte each, signed as the codes are; all 0 of signed symmetric codes
 * data          out, packed codes: corepress_packed_size(weights, 8, 4 or 2) bytes
 *
 * Codes that are floats have no zero points: they take COREPRESS_LINEAR_SYMMETRIC only. They are the nearest values,
 * ties to even, and never beyond the largest finite one. */
COREPRESS_API corepress_status corepress_quantize(const void* weights, const corepress_shape* shape,
                                                  corepress_code dtype, corepress_quantize_mode mode,
                                                  const int64_t* block_size, int search_scale, const float* importance,
                                                  int num_threads, void* scale, uint8_t* zero_point, uint8_t* data);

/* zero_point may be NULL: all 0. Products are rounded to the weights' dtype once. */
COREPRESS_API corepress_status corepress_dequantize(const uint8_t* data, const void* scale, const uint8_t* zero_point,
                                                    const corepress_shape* shape, corepress_code dtype,
                                                    const int64_t* block_size, int num_threads, void* weights);

/* The same, symmetric, with scales that are powers of two: the smallest whose largest code reaches all weights of a
 * block; with search_scale 1 the one of least squared error among it, the two below and the one above.
 *
 * exponent  out, [blocks] a byte each: 127 more than the exponent, as the data type float8 e8m0 has it */
COREPRESS_API corepress_status corepress_quantize_e8m0(const void* weights, const corepress_shape* shape,
                                                       corepress_code dtype, const int64_t* block_size,
                                                       int search_scale, const float* importance, int num_threads,
                                                       uint8_t* exponent, uint8_t* zero_point, uint8_t* data);
COREPRESS_API corepress_status corepress_dequantize_e8m0(const uint8_t* data, const uint8_t* exponent,
                                                         const uint8_t* zero_point, const corepress_shape* shape,
                                                         corepress_code dtype, const int64_t* block_size,
                                                         int num_threads, void* weights);

/* --- Pruning, and the sparse form: a mask of one bit per weight, and the weights whose bit is 1 ------------------- */

/* Bit 0 where |w| <= a[floor((n - 1) * sparsity)], `a` the sorted magnitudes of the n weights: sparsity 0 keeps all but
 * zeros, 1 nothing. This and the next three write
 *
 * mask    out, packed codes of 1 bit: corepress_packed_size(weights, 1) bytes
 * values  out, the weights whose bit is 1, in order; there must be room for all weights
 * kept    out, how many these are
 *
 * and find COREPRESS_NON_FINITE where a weight is NaN or infinite. */
COREPRESS_API corepress_status corepress_prune_to_sparsity(const void* weights, const corepress_shape* shape,
                                                           double sparsity, int num_threads, uint8_t* mask,
                                                           void* values, int64_t* kept);

/* Bit 0 where |w| <= threshold, 0 or more. */
COREPRESS_API corepress_status corepress_prune_below(const void* weights, const corepress_shape* shape,
                                                     double threshold, int num_threads, uint8_t* mask, void* values,
                                                     int64_t* kept);

/* Bit 0 for the n smallest magnitudes of every m consecutive weights along an axis, of equal ones the first, and for
 * zeros. An axis that m does not divide ends as if zeros followed. m is at most 1024. */
COREPRESS_API corepress_status corepress_prune_n_m(const void* weights, const corepress_shape* shape, int axis,
                                                   int64_t n, int64_t m, int num_threads, uint8_t* mask, void* values,
                                                   int64_t* kept);

/* As corepress_prune_to_sparsity, with the norm of each weight's block in the place of its magnitude: block_size
 * consecutive weights along an axis, of which the last block may be shorter. */
COREPRESS_API corepress_status corepress_prune_blocks(const void* weights, const corepress_shape* shape, int axis,
                                                      int64_t block_size, double sparsity, int num_threads,
                                                      uint8_t* mask, void* values, int64_t* kept);

/* values: out, as many weights as the mask has ones, in order. */
COREPRESS_API corepress_status corepress_encode_sparse(const void* weights, const corepress_shape* shape,
                                                       const uint8_t* mask, int num_threads, void* values);

/* weights: out, zeros where the bit is 0. */
COREPRESS_API corepress_status corepress_decode_sparse(const void* values, const uint8_t* mask,
                                                       const corepress_shape* shape, int num_threads, void* weights);

/* --- Parts -------------------------------------------------------------------------------------------------------- */

/* Codes of a byte each to `nbits` bits, 1 to 8, and back.
 *
 * codes      [count], below 2^nbits; where is_signed is not 0, int8 from -2^(nbits - 1) to 2^(nbits - 1) - 1
 * order      other than all packed codes above, it can be chosen
 * packed     corepress_packed_size(count, nbits) bytes */
COREPRESS_API corepress_status corepress_pack_bits(const uint8_t* codes, int64_t count, int nbits, int is_signed,
                                                   corepress_bit_order order, int num_threads, uint8_t* packed);
COREPRESS_API corepress_status corepress_unpack_bits(const uint8_t* packed, int64_t count, int nbits, int is_signed,
                                                     corepress_bit_order order, int num_threads, uint8_t* codes);

/* The optimal k-means of numbers on a line.
 *
 * values     [count], at least one, finite
 * weights    [count], of each number, finite, not negative, some positive; NULL: 1 each
 * k          at least 1
 * codes      out, [count], ascending with the values
 * centroids  out, [k], ascending; those not needed repeat the largest
 * inertia    out, [1], the weighted sum of squared distances */
COREPRESS_API corepress_status corepress_kmeans1d(const double* values, const double* weights, int64_t count, int k,
                                                  int32_t* codes, double* centroids, double* inertia);

/* Sums over the pairs of elements of two tensors; a pair of equal infinities adds nothing. The mean squared error is
 * squared_error / weights, the signal-to-noise ratio squared_first / squared_error, and the cosine of the angle product
 * / sqrt(squared_first * squared_second). */
typedef struct {
    double squared_error;  /* of (first - second)^2 */
    double squared_first;  /* of first^2 */
    double squared_second; /* of second^2 */
    double product;        /* of first * second */
    double largest_error;  /* the largest |first - second|, no sum */
} corepress_errors;

COREPRESS_API corepress_status corepress_compare(const void* first, const void* second, const corepress_shape* shape,
                                                 int num_threads, corepress_errors* errors);

#ifdef __cplusplus
}
#endif

#endif
