// The formats of weights as a run-time choice, and the size of packed codes.
#pragma once

#include <cstdint>

#include "core/half.h"

namespace corepress {

enum class FloatFormat { kHalf, kBFloat16, kSingle };

// Calls body with a value of the type that holds the format's bits.
template <typename Body>
auto with_bits(FloatFormat format, Body&& body) {
    switch (format) {
        case FloatFormat::kHalf: return body(uint16_t{});
        case FloatFormat::kBFloat16: return body(BFloat16Bits{});
        default: return body(uint32_t{});
    }
}

inline int64_t packed_size(int64_t count, int nbits) { return (count * nbits + 7) / 8; }

inline bool is_palette_width(int nbits) { return (nbits >= 1 && nbits <= 4) || nbits == 6 || nbits == 8; }

}  // namespace corepress
