// What joint forms need: codes of tensors divided into blocks of any grid, of which a mask may keep only some.
#pragma once

#include <cstdint>

#include "algo/affine/quantize.h"
#include "core/blocks.h"
#include "core/span.h"

namespace corepress {

// Writes the table entry of each code; luts: [groups, 2^nbits]. With a mask (else null), codes and values are only
// those of the elements whose bit is 1, in order, and at most as many as there are values: the mask may have changed
// since its ones were counted.
template <typename T>
void look_up(const uint8_t* packed, const BlockLayout& layout, int nbits, const T* luts, const uint8_t* mask,
             int threads, Span<T> values);

// What dequantize() writes for the elements whose bit of the mask is 1; packed and values are only those.
template <typename Bits>
void dequantize_kept(const uint8_t* packed, const BlockLayout& layout, CodeType type, const Bits* scales,
                     const uint8_t* zero_points, const uint8_t* mask, int threads, Span<Bits> values,
                     const uint8_t* exponents = nullptr);

// Packs the codes whose bit of the mask is 1, in order: kept_count of them, (kept_count * nbits + 7) / 8 bytes. If the
// mask has other ones by now, codes are left out or are 0.
void gather_codes(const uint8_t* packed, int64_t count, int nbits, const uint8_t* mask, int64_t kept_count, int threads,
                  uint8_t* kept);

// The largest magnitude of each group, 1 where that is 0, and the values divided by it: in float, rounded once.
template <typename Bits>
void normalize(const Bits* values, const GroupLayout& layout, int threads, Bits* scales, Bits* quotients);

// The values of each group times its scale, rounded once.
template <typename Bits>
void denormalize(const Bits* quotients, const GroupLayout& layout, const Bits* scales, int threads, Bits* values);

}  // namespace corepress
