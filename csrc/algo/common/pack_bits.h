// Codes of a byte each to the bits they need, and back.
#pragma once

#include <cstdint>

namespace corepress {

struct BitOrder {
    int nbits;       // 1 to 8
    bool is_signed;  // codes in two's complement
    bool big;        // most significant bit first
};

// packed: (count * nbits + 7) / 8 bytes, the rest of the last one 0. False if a code does not fit.
bool pack_bits(const uint8_t* codes, int64_t count, BitOrder order, int threads, uint8_t* packed);

void unpack_bits(const uint8_t* packed, int64_t count, BitOrder order, int threads, uint8_t* codes);

}  // namespace corepress
