// Affine quantization to 4 or 8 bits with one scale, and optionally one zero point, per block.
#pragma once

#include <cstdint>

#include "algo/common/measure.h"
#include "core/blocks.h"

namespace corepress {

struct IntegerType {
    int nbits;  // 4 or 8
    bool is_signed;

    int lowest() const { return is_signed ? -(1 << (nbits - 1)) : 0; }
    int highest() const { return lowest() + (1 << nbits) - 1; }
    int sign_bit() const { return is_signed ? 1 << (nbits - 1) : 0; }
};

struct AffineEncoding {
    IntegerType type;
    bool symmetric;     // one code less, and zero in the middle; else zero points are found, and the range includes 0
    bool search_scale;  // for the least squared error, with all codes in use
};

// weight = scale * (code - zero_point). scales and zero_points (a byte each, signed as the codes): one per block.
// packed: the codes in the tensor's order, least significant bit first. importance: of each value in the squared error
// that is searched for, or null for 1; a block that has none at all counts as if it were null. noise: what is lost, or
// null. Returns whether all values are finite; if not, nothing of the result has a meaning.
template <typename Bits>
bool quantize(const Bits* values, const float* importance, const BlockLayout& layout, AffineEncoding encoding,
              int threads, Bits* scales, uint8_t* zero_points, uint8_t* packed, Noise* noise = nullptr);

// zero_points may be null: all 0.
template <typename Bits>
void dequantize(const uint8_t* packed, const BlockLayout& layout, IntegerType type, const Bits* scales,
                const uint8_t* zero_points, int threads, Bits* values);

// What sum_errors says of `first` and the decoded values, which are never all in memory.
template <typename Bits>
ErrorSums sum_quantized_errors(const Bits* first, const uint8_t* packed, const BlockLayout& layout, IntegerType type,
                               const Bits* scales, const uint8_t* zero_points, int threads);

}  // namespace corepress
