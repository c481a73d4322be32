// Affine quantization to 8 bits with one scale, and optionally one zero point, per group.
#pragma once

#include <cstdint>

#include "core/span.h"

namespace corepress {

struct IntegerRange {
    int lowest;
    int highest;
    bool is_signed;
};

// weight = scale * (code - zero_point). With `symmetric` the range of codes is centred on the (constant) zero point;
// otherwise zero points are found so that the range of values, widened to include 0, fills the range of codes.
// scales and zero_points (codes' bytes): [groups]. codes: one byte each, in the tensor's order. Values must be finite.
template <typename Bits>
void quantize(const Bits* values, const GroupLayout& layout, IntegerRange range, bool symmetric, int threads,
              Bits* scales, uint8_t* zero_points, uint8_t* codes);

// zero_points may be null: all 0.
template <typename Bits>
void dequantize(const uint8_t* codes, const GroupLayout& layout, bool is_signed, const Bits* scales,
                const uint8_t* zero_points, int threads, Bits* values);

}  // namespace corepress
