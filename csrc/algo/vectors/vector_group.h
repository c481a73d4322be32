// The vectors of a tensor: runs of consecutive channels, divided into groups, read a tile at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/span.h"
#include "dispatch.h"

namespace corepress {

// A row-major tensor [blocks, length, inner]: vector a * inner + r has its components at [a, :, r].
struct VectorLayout {
    GroupLayout groups;  // of the vectors
    int64_t inner = 1;
    int64_t length = 1;

    int64_t count() const { return groups.size(); }
};

inline constexpr int64_t kVectorTile = 1024;

// Some vectors, one plane of floats per component. `weights`: one per component, in planes too, or null for 1 each;
// `shares`: one per vector, or null.
struct VectorPlanes {
    const float* planes;
    const float* weights;
    const float* shares;
    int64_t stride;
    BoxPlanes boxes = {};  // around each kBox of them, where there are
};

// Room for a tile and for what is found out about it.
struct VectorTile {
    std::vector<float> planes, weights, shares, distances;
    std::vector<uint16_t> codes;
    std::vector<float> floats;  // of a search among entries
    std::vector<int32_t> numbers;

    void make_room(int64_t length) {
        planes.resize(static_cast<size_t>(length * kVectorTile));
        weights.resize(planes.size());
        shares.resize(static_cast<size_t>(kVectorTile));
        distances.resize(static_cast<size_t>(kVectorTile));
        codes.resize(static_cast<size_t>(kVectorTile));
    }
};

// A tensor and what its elements (`importance`, in its layout) or its vectors (`shares`) count; null for 1 each.
// Values are read times `factor`, importance times `importance_factor`.
template <typename Bits>
struct VectorSource {
    const Bits* values;
    VectorLayout layout;
    const uint32_t* importance = nullptr;
    float importance_factor = 1;
    const float* shares = nullptr;

    // The vectors [begin, begin + count) of the tensor, at most a tile of them.
    VectorPlanes load(int64_t begin, int64_t count, float factor, VectorTile& tile, int64_t at = 0) const {
        const auto& halves_or_floats = kernels_for<Bits>(kernels());
        halves_or_floats.load_vectors(values, layout.inner, layout.length, begin, begin + count, factor,
                                      tile.planes.data() + at, kVectorTile);
        if (importance != nullptr) {
            kernels().single.load_vectors(importance, layout.inner, layout.length, begin, begin + count,
                                          importance_factor, tile.weights.data() + at, kVectorTile);
        }
        if (shares != nullptr) std::copy(shares + begin, shares + begin + count, tile.shares.data() + at);
        return {tile.planes.data(), importance == nullptr ? nullptr : tile.weights.data(),
                shares == nullptr ? nullptr : tile.shares.data(), kVectorTile};
    }
};

// One group of the vectors of a tensor, in its own order.
template <typename Bits>
struct VectorGroup {
    const VectorSource<Bits>& source;
    int64_t group;
    float factor;

    int64_t size() const { return source.layout.groups.group_size(); }
    int64_t length() const { return source.layout.length; }
    bool weighted() const { return source.importance != nullptr; }

    // The vectors [begin, begin + count) of the group, at most a tile of them.
    VectorPlanes load(int64_t begin, int64_t count, VectorTile& tile) const {
        const GroupLayout& groups = source.layout.groups;
        VectorPlanes planes{};
        for (int64_t at = 0; at < count;) {
            const int64_t outer = (begin + at) / groups.run, within = begin + at - outer * groups.run;
            const int64_t part = std::min(groups.run - within, count - at);
            planes = source.load(groups.offset(outer, group) + within, part, factor, tile, at);
            at += part;
        }
        return planes;
    }
};

}  // namespace corepress
