// The scale and the zero point of one block.
#pragma once

#include "algo/affine/quantize.h"
#include "core/half.h"
#include "kernels/table.h"

namespace corepress {

// One block of a tensor.
template <typename Bits>
struct BlockValues {
    const Bits* values;       // of the tensor, as is the importance
    const float* importance;  // of each value in a squared error, or null: all alike, as where a block has none at all
    const BlockLayout& layout;
    int64_t group;
};

// Codes that scales of the range of values are made for, and codes in use; they differ where a search gives a symmetric
// encoding its last code.
struct Codes {
    CodeRange scaled;
    CodeRange used;
    float symmetric_zero_point;
};
Codes codes_of(AffineEncoding encoding);

// What KernelTable::choose_affines computes, for all ranges there are. In double: in the weight's own arithmetic
// high - low overflows for halves from 32,768 on. A scale that would be 0 becomes the smallest positive number, which
// represents such values exactly or as closely as the format can; one whose extreme codes would decode to infinity goes
// one step down.
template <typename Bits>
Affine choose_affine(double low, double high, const Codes& codes, bool symmetric);

// Whether the next scale above may be better: a subnormal one, rounded down, clips far more than half a step.
template <typename Bits>
bool is_coarse(float scale);

// The better of the scale and the next one above.
template <typename Bits>
Affine round_scale(const BlockValues<Bits>& block, const Codes& codes, Affine affine);

// A power of two with which all codes decode to finite values: the smallest one whose largest code reaches all values
// in [low, high], if that is so.
template <typename Bits>
Affine choose_binary_affine(double low, double high, const Codes& codes);

// The one of least squared error among `start` and the powers of two next to it, two below and one above; of equal ones
// the first of start, those below, the one above.
template <typename Bits>
Affine search_binary_affine(const BlockValues<Bits>& block, const Codes& codes, Affine start);

// The scale and, unless symmetric, the zero point of least squared error that a search around `start`, made for values
// in [low, high], finds; never worse than start.
//
// Scales from 40 to 76 sixty-fourths of start's are tried, each with the zero points that clip about as much at both
// ends. The best of them, and the one whose codes another scale would suit best, then take turns: the least-squares
// scale for the codes, rounded to the format, gives new codes; neighbouring zero points are tried; until nothing
// improves.
template <typename Bits>
Affine search_affine(const BlockValues<Bits>& block, double low, double high, const Codes& codes, bool symmetric,
                     Affine start);

}  // namespace corepress
