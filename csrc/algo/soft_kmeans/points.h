// What stands for the values of a group: they themselves, or fewer points, each for many; and the entries of a round.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "algo/soft_kmeans/soft_kmeans.h"
#include "core/half.h"
#include "core/parallel.h"
#include "kernels/table.h"

namespace corepress {

// The entries of a round in the order in which loops take them: ascending, where they are numbers, so that a few of
// them are near to points that are.
class RoundEntries {
public:
    RoundEntries(const double* centroids, int64_t count, int64_t length, const SoftOptions& options);

    // Those that points between two numbers may have a share in that is more than the smallest weight.
    std::pair<int64_t, int64_t> near(double lowest, double highest) const;
    double reach() const { return reach_; }
    // Vectors, or numbers with width 1, of the entries in this order, and back.
    std::vector<double> ordered(const double* numbers, int64_t width) const;
    void restore(const double* ordered, int64_t width, double* numbers) const;
    SoftEntries view() const {
        return {values_.data(), count_, length_, special_, threshold_, per_temperature_, smallest_};
    }

private:
    int64_t count_, length_;
    double threshold_, per_temperature_, smallest_;
    double reach_;  // squared distance beyond the least at which a share is less than the smallest weight
    int64_t special_ = 0;
    std::vector<int64_t> order_;
    std::vector<double> values_;
};

// kSoftPoints points and how often each occurs: 0 for those that are none.
struct SoftTile {
    double* planes;
    double* multiplicity;
    int64_t count;
    double lowest, highest;
};

// Points that stand for numbers, ascending.
struct StandIns {
    double first = 0, step = 0;  // of points at equal steps; step 0: a point for each bit pattern that occurs
    std::vector<double> values;
    std::vector<double> counts;
    std::vector<double> slopes;   // sums of the gradient, if there is one
    std::vector<int32_t> places;  // of bit patterns
    bool any() const { return !values.empty(); }
};

// The widest gap between two entries that are numbers and that a value between them is shared by: the steepest step of
// a mean is temperature / (2 * gap) wide. Entries that the threshold of the first rules out everywhere do not count.
double widest_gap(const double* centroids, int64_t count, double threshold);

// Points for the numbers of a group, or none, where these would not be fewer or not exact enough.
template <typename Bits>
StandIns stand_ins(const SoftGroup<Bits>& group, const Bits* gradient, double gap, const SoftOptions& options,
                   int threads);

// Whether points serve for entries with such a gap, which may have grown since they were made.
bool are_close(const StandIns& points, double gap, const SoftOptions& options);

// What a value's point is, or the two points that it is between, and its share in the second.
struct Between {
    int64_t place;
    double share;
};

template <typename Bits>
Between place_of(const StandIns& points, Bits bits) {
    if (points.step == 0) return {points.places[static_cast<std::size_t>(bits)], 0};
    const double position = (static_cast<double>(Format<Bits>::to_float(bits)) - points.first) / points.step;
    const auto last = static_cast<int64_t>(points.values.size()) - 2;
    const int64_t place = std::min(std::max(static_cast<int64_t>(position), int64_t{0}), last);
    return {place, position - static_cast<double>(place)};
}

// Loads a tile of values, or of points.
template <typename Bits>
void load_tile(const SoftGroup<Bits>& group, const StandIns& points, int64_t tile, SoftTile& out) {
    const int64_t begin = tile * kSoftPoints, length = group.length;
    const int64_t total = points.any() ? static_cast<int64_t>(points.values.size()) : group.count;
    out.count = std::min(kSoftPoints, total - begin);
    out.lowest = __builtin_inf();
    out.highest = -out.lowest;
    if (length > 1 && out.count == kSoftPoints) {  // vectors, which nothing asks the range of
        const Bits* const values = group.values + begin * length;
        for (int64_t d = 0; d < length; ++d) {
            for (int64_t i = 0; i < kSoftPoints; ++i) {
                out.planes[d * kSoftPoints + i] = static_cast<double>(Format<Bits>::to_float(values[i * length + d]));
            }
        }
        std::fill_n(out.multiplicity, kSoftPoints, 1.0);
        return;
    }
    for (int64_t i = 0; i < kSoftPoints; ++i) {
        const bool is_point = i < out.count;
        for (int64_t d = 0; d < length; ++d) {
            double number = 0;
            if (is_point) {
                number = points.any()
                             ? points.values[static_cast<std::size_t>(begin + i)]
                             : static_cast<double>(Format<Bits>::to_float(group.values[(begin + i) * length + d]));
                out.lowest = number < out.lowest ? number : out.lowest;
                out.highest = number > out.highest ? number : out.highest;
            }
            out.planes[d * kSoftPoints + i] = number;
        }
        out.multiplicity[i] = !is_point ? 0 : points.any() ? points.counts[static_cast<std::size_t>(begin + i)] : 1;
    }
}

inline constexpr int64_t kTilesOfPiece = 256;
inline constexpr int64_t kMostPieces = 1024;

// Calls body(piece, first tile, last tile) for pieces of the tiles of so many points; the pieces depend on nothing
// else. `pieces_of` says how many there are.
inline int64_t tiles_of(int64_t points) { return (points + kSoftPoints - 1) / kSoftPoints; }
inline int64_t tiles_of_piece(int64_t points) {
    return std::max(kTilesOfPiece, (tiles_of(points) + kMostPieces - 1) / kMostPieces);
}
inline int64_t pieces_of(int64_t points) {
    return (tiles_of(points) + tiles_of_piece(points) - 1) / tiles_of_piece(points);
}
template <typename Body>
void for_each_piece(int64_t points, int threads, const Body& body) {
    const int64_t grain = tiles_of_piece(points);
    parallel_pieces(tiles_of(points), grain, threads,
                    [&](int64_t begin, int64_t end) { body(begin / grain, begin, end); });
}

// The shares of a tile, and room for what is computed with them.
struct SoftScratch {
    explicit SoftScratch(int64_t entries, int64_t length)
        : planes(static_cast<std::size_t>(length * kSoftPoints)),
          slopes(planes.size()),
          results(planes.size()),
          multiplicity(static_cast<std::size_t>(kSoftPoints)),
          nearest(multiplicity.size()),
          shares(static_cast<std::size_t>(entries * kSoftPoints)),
          changes(shares.size()) {}
    std::vector<double> planes, slopes, results, multiplicity, nearest, shares, changes;
    std::vector<double> taken, next, pulls;  // of the entries near a tile
    SoftTile tile() { return {planes.data(), multiplicity.data(), 0, 0, 0}; }
};

// Lanes of sums as numbers.
inline void add_up(const std::vector<double>& lanes, double* sums) {
    for (std::size_t i = 0; i * 8 < lanes.size(); ++i) {
        for (std::size_t lane = 0; lane < 8; ++lane) sums[i] += lanes[i * 8 + lane];
    }
}

}  // namespace corepress
