// A cube root that is the same number on every machine, which the C library's is not. Good to a few units in the last
// place for normal numbers.
#pragma once

#include <cstdint>
#include <cstring>

namespace corepress {

inline double cube_root(double value) {
    if (!(value > 0)) return 0;
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits = bits / 3 + 0x2a9f7893782da1ceu;  // a third of the exponent: right to about 3 %
    double root;
    std::memcpy(&root, &bits, sizeof root);
    for (int i = 0; i < 4; ++i) root = (root + root + value / (root * root)) / 3;
    return root;
}

}  // namespace corepress
