// Layouts of blocks, and integer types, as Python gives them.
#pragma once

#include <utility>
#include <vector>

#include "algo/affine/quantize.h"
#include "bindings/arrays.h"

namespace corepress {

using Splits = std::vector<std::pair<int64_t, int64_t>>;  // (groups, length) each

inline BlockLayout blocks_from(const Splits& splits, int64_t size) {
    std::vector<Split> parts;
    for (const auto& [groups, length] : splits) {
        require(groups >= 1 && length >= 0, "layout has a part of ", groups, " groups of ", length);
        parts.push_back({groups, length});
    }
    BlockLayout layout(parts);
    require(layout.size() == size, "layout of ", layout.size(), " elements does not hold ", size);
    return layout;
}

inline IntegerType type_from(int nbits, bool is_signed) {
    require(nbits == 4 || nbits == 8, "nbits must be 4 or 8, not ", nbits);
    return {nbits, is_signed};
}

}  // namespace corepress
