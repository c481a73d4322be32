// A cube root that is the same number on every machine, which the C library's is not. Good to a few units in the last
// place for normal numbers.
#pragma once

#include <cstdint>
#include <cstring>

namespace corepress {

// Right to about 3 %: a third of the exponent. For positive values.
inline double guess_cube_root(double value) {
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits = bits / 3 + 0x2a9f7893782da1ceu;
    double root;
    std::memcpy(&root, &bits, sizeof root);
    return root;
}

inline double cube_root(double value) {
    if (!(value > 0)) return 0;
    double root = guess_cube_root(value);
    for (int i = 0; i < 4; ++i) root = (root + root + value / (root * root)) / 3;
    return root;
}

// Right to about a thousandth, in a quarter of the time.
inline double rough_cube_root(double value) {
    const double root = guess_cube_root(value);
    return value > 0 ? (root + root + value / (root * root)) * (1.0 / 3) : 0;
}

}  // namespace corepress
