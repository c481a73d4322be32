// The leaf loops at one instruction-set level. CMake compiles this file once per level, with COREPRESS_LEVEL naming it.
//
// Everything but the table is in an anonymous namespace, and nothing here may instantiate a template of the standard
// library: the linker would be free to keep this file's copy, with its instructions, for the whole program.
#include <stdint.h>
#include <string.h>

#include "core/half.h"
#include "core/rounding.h"
#include "kernels/table.h"

#if defined(__AVX512F__) || defined(__F16C__) || defined(__BMI2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace corepress {
namespace {

constexpr int64_t kTile = 1024;  // values held in registers' reach, in the first-level cache
constexpr int64_t kLanes = 8;    // doubles of a 512-bit register

#include "kernels/registers.inl.h"

// The lanes of sums.
using Doubles = Wide<double, kLanes>;

// The next up to eight floats, zeros after them.
inline __attribute__((always_inline)) void load(const float* singles, int64_t count, Doubles& doubles) {
    float padded[kLanes] = {};
    memcpy(padded, singles, static_cast<size_t>(count) * sizeof *padded);
    load(padded, doubles);
}

// The sum and the lanes, in their order.
inline __attribute__((always_inline)) double add_lanes(const Doubles& lanes, double sum) {
    double numbers[kLanes];
    store(lanes, numbers);
    for (const double number : numbers) sum += number;
    return sum;
}

// The largest of a number and the lanes; NaN is passed over.
inline __attribute__((always_inline)) double largest_of(const Doubles& lanes, double largest) {
    double numbers[kLanes];
    store(lanes, numbers);
    for (const double number : numbers) largest = number > largest ? number : largest;
    return largest;
}

// Calls body(length), as a constant that spares loops their tails for the usual sizes of blocks.
template <typename Body>
inline __attribute__((always_inline)) void with_constant(int64_t length, const Body& body) {
    if (length == 32) return body(int64_t{32});
    if (length == 16) return body(int64_t{16});
    if (length == 64) return body(int64_t{64});
    body(length);
}

#include "kernels/intrinsics.inl.h"
#include "kernels/pack_intrinsics.inl.h"

#include "kernels/tiles.inl.h"

#include "kernels/floats.inl.h"
#include "kernels/scaling.inl.h"

#include "kernels/affine.inl.h"
#include "kernels/affine_fit.inl.h"
#include "kernels/fake_quantize.inl.h"
#include "kernels/pack.inl.h"
#include "kernels/palette.inl.h"
#include "kernels/path.inl.h"
#include "kernels/points.inl.h"
#include "kernels/products.inl.h"
#include "kernels/scan.inl.h"
#include "kernels/soft_kmeans.inl.h"
#include "kernels/steps.inl.h"
#include "kernels/vector.inl.h"
#include "kernels/vector_codes.inl.h"

#include "kernels/mask.inl.h"  // uses the packer
#include "kernels/structure.inl.h"

template <typename Bits>
constexpr ValueKernels<Bits, typename Format<Bits>::Key> value_kernels() {
    using Key = typename Format<Bits>::Key;
    return {
        count_nonfinite<Bits>,
        run_key_ranges<Bits, Key>,
        column_key_range<Bits, Key>,
        counted_points<Bits>(),
        assign_by_cuts<Bits, Key>,
        assign_by_search<Bits, Key>,
        assign_by_table<Bits, Key>,
        look_up<Bits>,
        load_vectors<Bits>,
        look_up_vectors<Bits>,
        join_planes<Bits>,
        quantize_runs<Bits>,
        quantize_columns<Bits>,
        dequantize_runs<Bits>,
        dequantize_columns<Bits>,
        divide<Bits>,
        multiply<Bits>,
        divide_columns<Bits>,
        multiply_columns<Bits>,
        load_affines<Bits>,
        choose_affines<Bits, Key>,
        add_fit<Bits>,
        add_moments<Bits>,
        mask_above<Bits>,
        take_between<Bits>,
        compact<Bits>,
        expand<Bits>,
        keep_largest<Bits>,
        sum_block_squares<Bits>,
        mask_of_kept<Bits>,
        narrow,
        add_errors<Bits>,
        add_noise<Bits>,
    };
}

}  // namespace

#define COREPRESS_JOIN_(a, b) a##b
#define COREPRESS_JOIN(a, b) COREPRESS_JOIN_(a, b)
#define COREPRESS_TEXT_(a) #a
#define COREPRESS_TEXT(a) COREPRESS_TEXT_(a)

extern const KernelTable COREPRESS_JOIN(kernels_, COREPRESS_LEVEL);
const KernelTable COREPRESS_JOIN(kernels_, COREPRESS_LEVEL) = {
    COREPRESS_TEXT(COREPRESS_LEVEL),
    value_kernels<uint16_t>(),
    value_kernels<BFloat16Bits>(),
    value_kernels<uint32_t>(),
    pack_any<false>,
    unpack_any<false>,
    pack_any<true>,
    unpack_any<true>,
    merge_codes,
    extend_signs,
    count_bits,
    take_sums_between,
    keep_blocks_above,
    encode_steps,
    decode_steps,
    assign_vectors,
    nearest_codes,
    assign_close_vectors,
    add_members,
    add_distances,
    approach,
    cheapest_link,
    cheapest_links,
    subtract_products,
    count_below,
    nearest_entries,
    add_rows,
    soft_shares,
    soft_sums,
    soft_means,
    soft_slopes,
    fake_quantize,
    fake_quantize_slopes,
};

}  // namespace corepress
