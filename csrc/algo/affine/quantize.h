// Affine quantization to integers or floats of 2 to 8 bits with one scale, and optionally one zero point, per block.
#pragma once

#include <cstdint>

#include "algo/common/measure.h"
#include "core/blocks.h"
#include "kernels/table.h"

namespace corepress {

struct CodeType {
    int nbits;  // 2, 4 or 8
    bool is_signed;
    const FloatCode* floats = nullptr;  // integers

    int lowest() const { return is_signed ? -(1 << (nbits - 1)) : 0; }  // of integers
    int highest() const { return lowest() + (1 << nbits) - 1; }
    StoredCode stored() const { return {is_signed ? 1 << (nbits - 1) : 0, floats}; }
    StoredCode stored_as_bytes() const { return {is_signed ? 0x80 : 0, floats}; }
    int64_t unit() const { return nbits == 2 ? 4 : 2; }  // so many codes, of any width, end at a byte's end
};
inline CodeType type_of(const FloatCode& floats) { return {floats.nbits, true, &floats}; }

struct AffineEncoding {
    CodeType type;
    bool symmetric;     // one code less, and zero in the middle; else zero points are found, and the range includes 0
    bool search_scale;  // for the least squared error, with all codes in use unless scales are binary
    bool binary_scales = false;  // powers of two; symmetric
};

// weight = scale * (code - zero_point). scales and zero_points (a byte each, signed as the codes): one per block.
// packed: the codes in the tensor's order, least significant bit first. importance: of each value in the squared error
// that is searched for, or null for 1; a block that has none at all counts as if it were null. noise: what is lost, or
// null. exponents: where scales are binary, what is found instead of them, a byte each: of 2^-127 it is 0. Returns
// whether all values are finite; if not, nothing of the result has a meaning.
template <typename Bits>
bool quantize(const Bits* values, const float* importance, const BlockLayout& layout, AffineEncoding encoding,
              int threads, Bits* scales, uint8_t* zero_points, uint8_t* packed, Noise* noise = nullptr,
              uint8_t* exponents = nullptr);

// zero_points may be null: all 0. exponents, unless they are null, stand for scales.
template <typename Bits>
void dequantize(const uint8_t* packed, const BlockLayout& layout, CodeType type, const Bits* scales,
                const uint8_t* zero_points, int threads, Bits* values, const uint8_t* exponents = nullptr);

// What sum_errors says of `first` and the decoded values, which are never all in memory.
template <typename Bits>
ErrorSums sum_quantized_errors(const Bits* first, const uint8_t* packed, const BlockLayout& layout, CodeType type,
                               const Bits* scales, const uint8_t* zero_points, int threads,
                               const uint8_t* exponents = nullptr);

// 2^(exponent - 127), as e8m0 has it; 255 is NaN.
inline float scale_of_exponent(uint8_t exponent) {
    const uint32_t bits = exponent == 0 ? 0x00400000u : static_cast<uint32_t>(exponent) << 23;
    return float_from_bits(exponent == 255 ? 0x7fc00000u : bits);
}

}  // namespace corepress
