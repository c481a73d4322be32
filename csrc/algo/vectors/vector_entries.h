// The entries of a table of vectors, as the search for the nearest reads them.
#pragma once

#include <cstdint>
#include <vector>

#include "algo/vectors/vector_group.h"
#include "algo/vectors/vector_order.h"

namespace corepress {

class VectorEntries {
public:
    // From here on it pays to bring vectors in an order of place before they are assigned.
    static bool worth_sorting(int64_t count, int64_t length) { return length <= VectorOrder::kLongest && count >= 64; }

    void set(const float* entries, int64_t count, int64_t length);
    int64_t count() const { return count_; }

    // Fills tile.codes and tile.distances. Boxes around the vectors only affect the speed.
    void assign(const VectorPlanes& planes, int64_t size, VectorTile& tile) const {
        assign(planes, size, tile, tile.codes.data(), tile.distances.data());
    }
    // Fills tile.codes only, sooner.
    void assign_codes(const VectorPlanes& planes, int64_t size, VectorTile& tile) const;
    // The room for results is a multiple of 32, the tile is only for what lies between.
    void assign(const VectorPlanes& planes, int64_t size, VectorTile& tile, uint16_t* codes, float* distances) const;

private:
    int64_t count_ = 0, length_ = 0, stride_ = 0;
    std::vector<float> entries_, planes_;
};

}  // namespace corepress
