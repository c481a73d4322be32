// Layouts of blocks, and integer types, as Python gives them.
#pragma once

#include <string>
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

inline CodeType type_from(const std::string& name) {
    const std::pair<const char*, CodeType> types[] = {
        {"int8", {8, true}},
        {"uint8", {8, false}},
        {"int4", {4, true}},
        {"uint4", {4, false}},
        {"int2", {2, true}},
        {"uint2", {2, false}},
        {"float8_e4m3fn", type_of(kFloat8E4M3FN)},
        {"float8_e5m2", type_of(kFloat8E5M2)},
        {"float4_e2m1fn", type_of(kFloat4E2M1FN)},
    };
    for (const auto& [known, type] : types) {
        if (name == known) return type;
    }
    require(false, "dtype '", name, "' is unknown");
    return {};
}

// Scales as floats, or as exponents of 2 in bytes.
inline bool are_exponents(const py::array& scale) { return scale.dtype().kind() == 'u' && scale.itemsize() == 1; }

inline void require_scales(const py::array& scale, const py::array& weights, const char* names) {
    if (are_exponents(scale)) return require_contiguous(scale, "scale");
    require_float(scale, "scale");
    require_same_dtype(scale, weights, names);
}

}  // namespace corepress
