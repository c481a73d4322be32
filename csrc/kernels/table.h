// The contract of the leaf loops. They are compiled once per instruction-set level from the same source, take raw
// pointers, allocate nothing, throw nothing, and give the same bytes at every level.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/half.h"

namespace corepress {

inline constexpr int64_t kLargestGroup = 1024;  // ranks are counted in a half's width
inline constexpr int64_t kFeedbackRows = 32;    // of a matrix, whose errors are fed back side by side

// What a compressed tensor loses, beside what it stands for.
struct Noise {
    double squared_error = 0;
    double squared_first = 0;
};

// The same and more.
struct ErrorSums {
    double squared_error = 0;
    double squared_first = 0;
    double squared_second = 0;
    double product = 0;
    double largest_error = 0;
};

// code = clip(rint(value / scale) + zero_point, lowest, highest)
struct Affine {
    float scale;
    float zero_point;
};
// Codes that are floats of 8 or 4 bits: sign, exponent, mantissa. From `special` on, magnitudes stand for infinity and
// NaN, which are read but never made.
struct FloatCode {
    int nbits;
    int mantissa_bits;
    int bias;  // of the exponent
    int special;
    float largest;
};
inline constexpr FloatCode kFloat8E4M3FN{8, 3, 7, 0x7f, 448};
inline constexpr FloatCode kFloat8E5M2{8, 2, 15, 0x7c, 57344};
inline constexpr FloatCode kFloat4E2M1FN{4, 1, 1, 0x80, 6};

// Of integers the codes in use; of floats, the largest magnitude.
struct CodeRange {
    float lowest;
    float highest;
    const FloatCode* floats = nullptr;
};
// What a byte stands for: an integer whose sign bit is `sign` (0: none), or a float.
struct StoredCode {
    int sign;
    const FloatCode* floats = nullptr;
};
// value = scale * code + bias
struct EvenStep {
    float scale;
    float bias;
};
// result = scale * rint(clip(value * reciprocal, lowest, highest)), with bounds of integers less the zero point; the
// gradient passes for values from `least` to `largest`, half a step beyond the bounds
struct FakeStep {
    FakeStep(float step, float lowest_integer, float highest_integer)
        : scale(step),
          reciprocal(1.0f / step),
          lowest(lowest_integer),
          highest(highest_integer),
          least((lowest_integer - 0.5f) * step),
          largest((highest_integer + 0.5f) * step) {}

    float scale;
    float reciprocal;
    float lowest;
    float highest;
    float least;
    float largest;
};
// Sums over values of the gradient times what the scale multiplies, and of the gradient outside of the range.
struct FakeSlopes {
    double of_scale = 0;
    double outside = 0;
};
struct AffineRule {
    CodeRange range;
    bool symmetric;
    float zero_point;     // where symmetric
    float usual_lowest;   // of a scale
    float usual_highest;  // of a range of values
};

struct Moments {
    double product = 0;  // of values and codes less the zero point
    double square = 0;   // of codes less the zero point
};
struct FitSums {
    double error = 0;  // squared, of the decoded values
    Moments moments;
};

inline constexpr int64_t kBox = 32;  // vectors

// The bounds of boxes, in planes [length, stride].
struct BoxPlanes {
    const float* lowest;
    const float* highest;
    int64_t stride;
};

// Entries in planes [length, stride], up to a multiple of 16 that repeats any entry.
struct EntryPlanes {
    const float* planes;
    int64_t stride;
    int64_t count;
};

// Vectors that follow each other may have one entry, and sums would wait for each other: they take turns among these.
inline constexpr int64_t kMemberTurns = 4;

struct DistanceSum {
    double total = 0;
    double largest = 0;
};

// A value on a line, and what it weighs.
struct Point {
    double value;
    double weight;
};

// Cuts of a line of weighted points (algo/palettize/cut_line.h): sums over the points between an origin and each, and
// the least cost of a path to it. As many numbers as kPathPadding more than there are cuts can be read.
struct PathCuts {
    const double* weight;
    const double* moment;
    const double* square;
    const double* best;
};
struct PathLink {
    double cost;  // of the path
    int32_t from;
};
inline constexpr int32_t kPathPadding = 8;

inline constexpr int64_t kSoftPoints = 32;  // that are assigned to entries side by side

// Entries of a palette that points are assigned to, each in part: [count, length], the most similar most.
struct SoftEntries {
    const double* values;
    int64_t count;
    int64_t length;
    int64_t special;  // the entry whose squared distances are `threshold` less
    double threshold;
    double per_temperature;  // what squared distances are multiplied by
    double smallest;         // weight of an entry in a point's mean
};

// What the result of a round is for: derivatives by the next entries, divided by the sums of weights, [count, length],
// and by the results of points, in planes; null where there are none.
struct SoftPulls {
    const double* next;
    const double* of_entries;
    const double* of_points;
};

// Loops over values of one format, given as their bits: uint16_t for half, BFloat16Bits, uint32_t for float. Keys are
// core/half.h's.
template <typename Bits, typename Key>
struct ValueKernels {
    int64_t (*count_nonfinite)(const Bits* values, int64_t count);

    // Smallest and largest key of each run of length >= 1, merged into lowest and highest.
    void (*run_key_ranges)(const Bits* values, int64_t runs, int64_t length, Key* lowest, Key* highest);
    // The same for each column of a row-major [rows, columns] matrix.
    void (*column_key_range)(const Bits* values, int64_t rows, int64_t columns, Key* lowest, Key* highest);

    // From counts of all bit patterns, which it leaves at 0, the values that occur and how often, ascending; -0 counts
    // as 0. Returns how many they are; there is room for 16 more. Null for floats, which have too many patterns.
    int64_t (*points_of_counts)(uint32_t* counts, Point* points);

    // codes[i] = number of cuts below values[i]: the code is j where cuts[j-1] < key <= cuts[j]. Cuts ascend.
    void (*assign_by_cuts)(const Bits* values, int64_t count, const Key* cuts, int cut_count, uint8_t* codes);
    // The same in log2(cut_count + 1) steps; cut_count + 1 must be a power of two.
    void (*assign_by_search)(const Bits* values, int64_t count, const Key* cuts, int cut_count, uint8_t* codes);
    // The same from the code of the first value that shares the upper 16 bits, then `span` comparisons (at most that
    // many cuts may share them). cuts[cut_count] must exist and be the largest key.
    void (*assign_by_table)(const Bits* values, int64_t count, const uint8_t* first_codes, int span, const Key* cuts,
                            uint8_t* codes);
    void (*look_up)(const uint8_t* codes, int64_t count, const Bits* lut, int entries, Bits* values);

    // A row-major tensor [blocks, length, inner] holds vectors of `length` components; vector a * inner + r has those
    // at [a, :, r]. Writes component c of vector begin + i, times `factor`, to planes[c * stride + i].
    void (*load_vectors)(const Bits* values, int64_t inner, int64_t length, int64_t begin, int64_t end, float factor,
                         float* planes, int64_t stride);
    // codes: [blocks, count], values: [blocks, length, inner] of which the first `count` of each inner run are written;
    // lut: [entries, length].
    void (*look_up_vectors)(const uint8_t* codes, int64_t blocks, int64_t inner, int64_t count, int64_t length,
                            const Bits* lut, int entries, Bits* values);
    // planes: [length, stride], of which the first blocks * inner of each plane are written to values: [blocks, length,
    // inner]. Planes have room for 32 bytes more.
    void (*join_planes)(const Bits* planes, int64_t stride, int64_t blocks, int64_t inner, int64_t length,
                        Bits* values);

    // `runs` runs of `length` values, one after the other, each with an Affine of its own.
    void (*quantize_runs)(const Bits* values, int64_t runs, int64_t length, const Affine* affines, CodeRange range,
                          uint8_t* codes);
    // Row-major [rows, columns], one Affine per column.
    void (*quantize_columns)(const Bits* values, int64_t rows, int64_t columns, const Affine* affines, CodeRange range,
                             uint8_t* codes);
    // values[i] = (codes[i] - zero_point) * scale, rounded once. `sign` is the sign bit of two's complement codes,
    // whose upper bits may be 0; 0 for unsigned ones.
    void (*dequantize_runs)(const uint8_t* codes, int64_t runs, int64_t length, const Affine* affines,
                            StoredCode stored, Bits* values);
    void (*dequantize_columns)(const uint8_t* codes, int64_t rows, int64_t columns, const Affine* affines,
                               StoredCode stored, Bits* values);
    // quotients[i] = values[i] / divisor, in float and rounded once more for halves.
    void (*divide)(const Bits* values, int64_t count, float divisor, Bits* quotients);
    // products[i] = values[i] * factor, likewise.
    void (*multiply)(const Bits* values, int64_t count, float factor, Bits* products);
    // The same, row-major [rows, columns], with a number per column.
    void (*divide_columns)(const Bits* values, int64_t rows, int64_t columns, const float* divisors, Bits* quotients);
    void (*multiply_columns)(const Bits* values, int64_t rows, int64_t columns, const float* factors, Bits* products);
    // Affines from what is stored of them; zero_points may be null: all 0.
    void (*load_affines)(const Bits* scales, const uint8_t* zero_points, int64_t count, bool is_signed,
                         Affine* affines);
    // One Affine per range of keys, and as they are stored; returns how many of them are unusual by the rule's bounds.
    int64_t (*choose_affines)(const Key* lowest, const Key* highest, int64_t count, AffineRule rule, Affine* affines,
                              Bits* scales, uint8_t* zero_points);
    // Adds the sums for values quantized with an Affine, in the order of add_errors, each term times the value's
    // importance, unless that is null.
    void (*add_fit)(const Bits* values, const float* importance, int64_t count, Affine affine, CodeRange range,
                    FitSums* sums);
    // Adds the moments for each of several Affines of about the same scale, 256 values at a time in their order: sums
    // of floats, or of doubles where there is importance. Quotients are products with the reciprocal of the scale.
    void (*add_moments)(const Bits* values, const float* importance, int64_t count, const Affine* affines,
                        int affine_count, CodeRange range, Moments* moments);

    // Bit i of mask (LSB first, tail bits 0) is 1 where |values[i]| > threshold, a magnitude's bits. Returns the ones,
    // and raises *largest to the largest magnitude.
    int64_t (*mask_above)(const Bits* values, int64_t count, Bits threshold, uint8_t* mask, Bits* largest);
    // Writes the values of magnitudes from `first` to `last`, in order, and returns how many they are; `taken` has room
    // for all values and 3 more. Values that change meanwhile may be taken as they are then. Adds to *below how many
    // magnitudes are less than `first`.
    int64_t (*take_between)(const Bits* values, int64_t count, Bits first, Bits last, Bits* taken, int64_t* below);
    // Writes the values whose mask bit is 1, in order, at most kept_count, which is how many they should be. Meanwhile
    // it asks for the memory of as many values from `next` on, which are read after these.
    void (*compact)(const Bits* values, int64_t count, const uint8_t* mask, Bits* kept, int64_t kept_count,
                    const Bits* next);
    // The inverse, zeros elsewhere, and for ones beyond kept_count.
    void (*expand)(const Bits* kept, int64_t kept_count, const uint8_t* mask, int64_t count, Bits* values);

    // Groups of m rows of `run` values, rows `stride` apart: keep (one byte a value, without gaps between rows) is 0
    // for the n smallest magnitudes of each place of a group, of equal ones the first, and 1 for the others. m is at
    // most kLargestGroup.
    void (*keep_largest)(const Bits* values, int64_t groups, int64_t m, int64_t run, int64_t stride, int64_t n,
                         uint8_t* keep);
    // Blocks of block_size >= 1 rows of `run` values, rows `stride` apart: the sum of squares of each place of a block,
    // in the order of rows.
    void (*sum_block_squares)(const Bits* values, int64_t blocks, int64_t block_size, int64_t run, int64_t stride,
                              double* sums);
    // Bit i of mask is 1 where keep[i], 0 or 1, is 1 and values[i] is not zero. Returns the ones, and raises *largest
    // to the largest magnitude.
    int64_t (*mask_of_kept)(const Bits* values, const uint8_t* keep, int64_t count, uint8_t* mask, Bits* largest);

    // To nearest even; NaN stays NaN.
    void (*narrow)(const float* singles, int64_t count, Bits* values);

    // Adds the sums over pairs of values. The order of additions is fixed: lane i % 8, lanes in order at the end.
    // NaN makes sums NaN, but largest_error passes over it.
    void (*add_errors)(const Bits* first, const Bits* second, int64_t count, ErrorSums* sums);
    // Only the first two sums.
    void (*add_noise)(const Bits* first, const Bits* second, int64_t count, Noise* noise);
};

struct KernelTable {
    const char* level;
    ValueKernels<uint16_t, int16_t> half;
    ValueKernels<BFloat16Bits, int16_t> bfloat16;
    ValueKernels<uint32_t, int32_t> single;

    // Codes of nbits bits (1 to 8; upper bits are ignored), LSB first in one stream; the last byte's tail
    // bits are 0.
    void (*pack)(const uint8_t* codes, int64_t count, int nbits, uint8_t* packed);
    // Reads exactly (count * nbits + 7) / 8 bytes.
    void (*unpack)(const uint8_t* packed, int64_t count, int nbits, uint8_t* codes);
    // The same, MSB first.
    void (*pack_big)(const uint8_t* codes, int64_t count, int nbits, uint8_t* packed);
    void (*unpack_big)(const uint8_t* packed, int64_t count, int nbits, uint8_t* codes);
    // All bits of codes[i] + offset, modulo 256, together.
    uint8_t (*merge_codes)(const uint8_t* codes, int64_t count, uint8_t offset);
    // Two's complement of nbits bits to that of 8.
    void (*extend_signs)(uint8_t* codes, int64_t count, int nbits);
    // Ones among the first `count` bits.
    int64_t (*count_bits)(const uint8_t* mask, int64_t count);
    // Writes the bits of the sums that lie in [first, first + length), in order, and returns how many they are; `taken`
    // has room for all sums and 7 more. Adds to *below how many are less than `first`. No sum is negative or NaN.
    int64_t (*take_sums_between)(const double* sums, int64_t count, uint64_t first, uint64_t length, uint64_t* taken,
                                 int64_t* below);
    // Replicates sum > limit to the rows of each block.
    void (*keep_blocks_above)(const double* sums, int64_t blocks, int64_t block_size, int64_t run, double limit,
                              uint8_t* keep);

    // codes[i] = clip(rint((values[i] - bias) / scale), lowest, highest) in double, of the bits of floats; `runs` runs
    // of `length` values, each with an EvenStep of its own.
    void (*encode_steps)(const uint32_t* values, int64_t runs, int64_t length, const EvenStep* steps, CodeRange range,
                         uint8_t* codes);
    // values[i] = codes[i] * scale + bias in float, rounded twice; codes of 8 bits.
    void (*decode_steps)(const uint8_t* codes, int64_t runs, int64_t length, const EvenStep* steps, bool is_signed,
                         uint32_t* values);

    // Nearest of `entry_count` entries, [entries, length], to each vector of planes [length, stride]; of equally near
    // ones the first. The distance is the sum of squares in the order of components, each times its weight (in planes
    // too) unless `weights` is null. Works on 32 vectors at a time: planes, codes and distances must have room for a
    // multiple of that.
    void (*assign_vectors)(const float* planes, const float* weights, int64_t stride, int64_t length, int64_t count,
                           const float* entries, int64_t entry_count, uint16_t* codes, float* distances);
    // The same codes; the distances are room.
    void (*nearest_codes)(const float* planes, const float* weights, int64_t stride, int64_t length, int64_t count,
                          const float* entries, int64_t entry_count, uint16_t* codes, float* distances);
    // The same for vectors of 1 to 4 components with boxes around each kBox of them, sooner where these are small:
    // entries too far from all of a box are passed over. floats and numbers are room for (length + 1) * (stride + 16)
    // and 2 * (stride + 16) of them, with the entries' stride.
    void (*assign_close_vectors)(const float* planes, int64_t stride, int64_t length, int64_t count,
                                 const BoxPlanes& boxes, const EntryPlanes& entries, float* floats, int32_t* numbers,
                                 uint16_t* codes, float* distances);
    // Adds vectors, times their shares unless null, to the sums of their entries, [kMemberTurns, k, length + 1], of
    // which the last is that of the shares.
    void (*add_members)(const float* planes, int64_t stride, int64_t length, int64_t count, const float* shares,
                        const uint16_t* codes, int64_t k, double* sums);
    // Adds distances, times their shares unless null, and raises the largest to that of these.
    void (*add_distances)(const float* distances, const float* shares, int64_t count, DistanceSum* sum);
    // nearer[i] = min(distances[i], the distance to `centre`, times shares[i] unless null). sums: one for each 1,024
    // vectors, of nearer, in sixteen lanes. `count` is a multiple of 16.
    void (*approach)(const float* planes, const float* weights, int64_t stride, int64_t length, int64_t count,
                     const float* shares, const float* centre, const float* distances, float* nearer, double* sums);
    // The cheapest path to a cut that comes from one of the cuts [begin, end), all before it; of equal ones the first.
    PathLink (*cheapest_link)(const PathCuts& cuts, int32_t begin, int32_t end, int32_t to);
    // The same for each of kPathPadding neighboring cuts from `to` on, with `price` added to the costs.
    void (*cheapest_links)(const PathCuts& cuts, int32_t begin, int32_t end, int32_t to, double price, double* costs,
                           int32_t* starts);
    // out[i, j] -= right[k, j] * left[k, i] for each k of the depth in order, rounded after each product and
    // difference; out is [rows, columns].
    void (*subtract_products)(const double* left, int64_t left_stride, const double* right, int64_t right_stride,
                              int64_t depth, int64_t rows, int64_t columns, double* out, int64_t out_stride);
    // counts[i] = how many of column i of [bounds, kFeedbackRows] are less than values[i], of kFeedbackRows values.
    void (*count_below)(const double* values, const double* columns, int64_t bounds, double* counts);
    // Nearest of the entries, [count, length], to each vector of planes [length, stride], of equally near ones the
    // first. Works on eight vectors at a time: planes and codes must have room for a multiple of that.
    void (*nearest_entries)(const double* planes, int64_t stride, int64_t length, int64_t vectors,
                            const double* entries, int64_t count, double* codes);
    // sums[codes[i]] += rows[i], in order, of `width` numbers; sums are [codes, sum_stride].
    void (*add_rows)(const double* rows, int64_t stride, const uint8_t* codes, int64_t count, int64_t width,
                     int64_t sum_stride, double* sums);

    // Soft assignments of kSoftPoints points, in planes [length, kSoftPoints], to the entries from `first` to `last`:
    // shares [last - first, kSoftPoints], and the least squared distances.
    void (*soft_shares)(const double* planes, const SoftEntries& entries, int64_t first, int64_t last, double* shares,
                        double* nearest);
    // Adds to the lanes [count, 1 + length, 8] of entries the sums of their weights, the larger of share and smallest,
    // times the points' multiplicity, and of weights times components.
    void (*soft_sums)(const double* planes, const double* multiplicity, const double* shares,
                      const SoftEntries& entries, int64_t first, int64_t last, double* lanes);
    // results[d, i] += the sum over entries of weight times vectors[j, d].
    void (*soft_means)(const double* shares, const SoftEntries& entries, const double* vectors, int64_t first,
                       int64_t last, double* results);
    // Derivatives through the shares: adds those by points to results [length, kSoftPoints], and those by entries,
    // times the points' multiplicity, to the lanes [count, length, 8]. `scratch` has room for the shares.
    void (*soft_slopes)(const double* planes, const double* multiplicity, const double* shares,
                        const SoftEntries& entries, const SoftPulls& pulls, int64_t first, int64_t last,
                        double* scratch, double* results, double* lanes);

    // Values that integers express, of values with one step.
    void (*fake_quantize)(const float* values, int64_t count, const FakeStep& step, float* results);
    // The gradient where it passes, 0 elsewhere, given that by the results; and, unless it is null,
    // what `sums` holds.
    void (*fake_quantize_slopes)(const float* values, const float* gradient, int64_t count, const FakeStep& step,
                                 float* results, FakeSlopes* sums);
};

template <typename Bits>
const auto& kernels_for(const KernelTable& table) {
    if constexpr (std::is_same_v<Bits, uint16_t>) {
        return table.half;
    } else if constexpr (std::is_same_v<Bits, BFloat16Bits>) {
        return table.bfloat16;
    } else {
        return table.single;
    }
}

}  // namespace corepress
