// A small weighted selection of the vectors of a group that stands for all of them.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "algo/vectors/vector_boxes.h"
#include "algo/vectors/vector_group.h"
#include "algo/vectors/vector_order.h"
#include "core/workspace.h"

namespace corepress {

// Counter-based: the same numbers wherever and in whichever order they are asked for.
inline uint64_t hash_of(uint64_t counter) {
    uint64_t state = (counter + 1) * 0x9e3779b97f4a7c15u;
    state = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9u;
    state = (state ^ (state >> 27)) * 0x94d049bb133111ebu;
    return state ^ (state >> 31);
}

// In [0, 1).
inline double uniform_of(uint64_t counter) { return static_cast<double>(hash_of(counter) >> 11) * 0x1p-53; }

// All vectors of a group that has few. Else a vector is chosen with a probability that is half its share of the weight,
// half its share of the squared distances from the mean, and counts as many vectors as it stands for (Bachem, Lucic,
// Krause, "Scalable k-means clustering via lightweight coresets", 2018): clusters of a few far vectors are not missed.
// One vector is chosen from each of as many parts of equal probability.
class VectorSample {
public:
    // `size` vectors, of which the first_size() first represent the group too, and so do as many as next_size() says.
    template <typename Bits>
    void draw(const VectorGroup<Bits>& group, int64_t size, int64_t first_size, int threads);
    // Brings vectors that are close to each other together, within those parts: see VectorEntries. Calls `before`,
    // which may look at the first_size() first, before it sorts these and maybe while it sorts others.
    void sort(int threads, const std::function<void()>& before);

    int64_t size() const { return size_; }
    int64_t first_size() const { return first_size_; }
    int64_t next_size(int64_t size) const { return std::min(4 * size, size_); }
    int64_t length() const { return length_; }
    bool weighted() const { return weighted_; }

    VectorPlanes load(int64_t begin, int64_t, VectorTile&) const { return at(begin); }
    VectorPlanes at(int64_t begin) const {
        return {planes_.data() + begin, weighted_ ? weights_.data() + begin : nullptr,
                shared_ ? shares_.data() + begin : nullptr, stride_,
                sorted_ && begin % kBox == 0 ? boxes_.at(begin) : BoxPlanes{}};
    }

private:
    struct Sums {
        double weight = 0;
        double square = 0;
    };
    void make_room(int64_t size, int64_t first_size, int64_t length, bool weighted, bool shared);
    int64_t place_of(int64_t index) const;
    void put(int64_t index, const VectorPlanes& from, int64_t offset, double share);
    template <typename Bits>
    void find_mean(const VectorGroup<Bits>& group);

    int64_t size_ = 0, first_size_ = 0, length_ = 0, stride_ = 0;
    int64_t step_ = 1, whole_ = 0, longer_ = 0;  // vectors of each step, and how many steps have one more
    bool weighted_ = false, shared_ = false, complete_ = false, sorted_ = false;
    std::vector<float> planes_, weights_, shares_, mean_;
    VectorBoxes boxes_;
    std::vector<Sums> sums_;  // of tiles
    WorkspacePool<VectorTile> tiles_;
    struct Sorter {
        VectorOrder order;
        std::vector<float> shares;
    };
    WorkspacePool<Sorter> sorters_;
};

}  // namespace corepress
