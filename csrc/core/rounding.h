// Rounding to the nearest integer, ties to even, in two additions on every machine: SSE2 has no instruction for it, and
// the C library's functions are calls.
#pragma once

namespace corepress {
namespace {

// 1.5 * 2^23 and 1.5 * 2^52: a float of magnitude below 2^22 plus this one, a double below 2^51 plus that one, has no
// digits left after the point.
constexpr float kRounding = 0x1.8p23f;

inline double round_to_even(double value) { return (value + 0x1.8p52) - 0x1.8p52; }

}  // namespace
}  // namespace corepress
