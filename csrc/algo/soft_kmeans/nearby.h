// Vectors in an order in which neighbours are near to each other, and the entries that a few neighbours have a share
// in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "algo/soft_kmeans/points.h"

namespace corepress {

inline constexpr int64_t kTilesOfBlock = 8;  // whose vectors are near to each other

// The values of a group in their own order, or vectors along a curve through the cells of a grid (Morton, "A computer
// oriented geodetic data base", 1966), so that most entries are far from all vectors of a tile.
template <typename Bits>
class OrderedGroup {
public:
    OrderedGroup(const SoftGroup<Bits>& given, const double* centroids) : group_(given) {
        constexpr int64_t kFewest = 4096, kFewestEntries = 16;  // to be worth the order
        constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
        const bool has_neighbours = given.length > 1 && given.length <= kMostAxes && given.entries >= kFewestEntries;
        if (!has_neighbours || given.count < kFewest || given.count > kMost) return;
        sort(given, centroids);
        values_.resize(static_cast<std::size_t>(given.count * given.length));
        for (int64_t i = 0; i < given.count; ++i) {
            const Bits* const from = given.values + place(i) * given.length;
            for (int64_t d = 0; d < given.length; ++d)
                values_[static_cast<std::size_t>(i * given.length + d)] = from[d];
        }
        group_.values = values_.data();
        for (int64_t begin = 0; begin < given.count; begin += kTilesOfBlock * kSoftPoints) {
            add_box(begin, std::min(given.count, begin + kTilesOfBlock * kSoftPoints));
        }
    }
    OrderedGroup(const OrderedGroup&) = delete;
    OrderedGroup& operator=(const OrderedGroup&) = delete;

    const SoftGroup<Bits>& group() const { return group_; }
    bool is_sorted() const { return !order_.empty(); }
    // The least and the largest component of vectors of a block of tiles, for each axis; infinite if one is not finite.
    const double* box(int64_t block) const { return boxes_.data() + block * 2 * group_.length; }
    int64_t place(int64_t i) const { return order_.empty() ? i : order_[static_cast<std::size_t>(i)]; }

private:
    static constexpr int64_t kMostAxes = 3;  // with more there are few cells along each
    static constexpr int kBits = 12;         // of a cell

    void add_box(int64_t begin, int64_t end) {
        for (int64_t d = 0; d < group_.length; ++d) {
            double lowest = std::numeric_limits<double>::infinity(), highest = -lowest, nothing = 0;
            for (int64_t i = begin; i < end; ++i) {
                const double number = static_cast<double>(Format<Bits>::to_float(group_.values[i * group_.length + d]));
                lowest = number < lowest ? number : lowest;
                highest = number > highest ? number : highest;
                nothing += number - number;
            }
            boxes_.push_back(nothing == 0 ? lowest : -std::numeric_limits<double>::infinity());
            boxes_.push_back(nothing == 0 ? highest : std::numeric_limits<double>::infinity());
        }
    }

    void sort(const SoftGroup<Bits>& given, const double* centroids) {
        const int64_t axes = given.length;
        const int bits = kBits / static_cast<int>(axes);
        const double cells = static_cast<double>(1 << bits);
        double first[kMostAxes], per_step[kMostAxes];
        for (int64_t d = 0; d < axes; ++d) {
            double lowest = centroids[d], highest = lowest;
            for (int64_t j = 1; j < given.entries; ++j) {
                lowest = std::min(lowest, centroids[j * given.length + d]);
                highest = std::max(highest, centroids[j * given.length + d]);
            }
            const double step = (highest - lowest) * 1.5 / cells;  // with a margin
            first[d] = lowest - (highest - lowest) / 4;
            per_step[d] = step > 0 && step < std::numeric_limits<double>::infinity() ? 1 / step : 0;
        }
        std::vector<uint16_t> spread(std::size_t{1} << bits);  // the bits of a number, with room for the other axes'
        for (std::size_t number = 0; number < spread.size(); ++number) {
            for (int bit = 0; bit < bits; ++bit) {
                const std::size_t set = (number >> bit & 1)
                                        << (static_cast<std::size_t>(bit) * static_cast<std::size_t>(axes));
                spread[number] = static_cast<uint16_t>(spread[number] | set);
            }
        }
        std::vector<uint16_t> cell_of(static_cast<std::size_t>(given.count));
        std::vector<int32_t> starts((std::size_t{1} << kBits) + 1);
        for (int64_t i = 0; i < given.count; ++i) {
            std::size_t cell = 0;
            for (int64_t d = 0; d < axes; ++d) {
                const double value = static_cast<double>(Format<Bits>::to_float(given.values[i * given.length + d]));
                const double at = std::min(std::max(0.0, (value - first[d]) * per_step[d]), cells - 1);  // NaN is 0
                cell |= std::size_t{spread[static_cast<std::size_t>(at)]} << d;
            }
            cell_of[static_cast<std::size_t>(i)] = static_cast<uint16_t>(cell);
            ++starts[cell + 1];
        }
        for (std::size_t cell = 1; cell < starts.size(); ++cell) starts[cell] += starts[cell - 1];
        order_.resize(static_cast<std::size_t>(given.count));
        for (int64_t i = 0; i < given.count; ++i) {
            const std::size_t cell = cell_of[static_cast<std::size_t>(i)];
            order_[static_cast<std::size_t>(starts[cell]++)] = static_cast<int32_t>(i);
        }
    }

    SoftGroup<Bits> group_;
    std::vector<int32_t> order_;
    std::vector<Bits> values_;
    std::vector<double> boxes_;
};

// The entries that a tile's points have a share in that is more than the smallest weight: a window of them, or, for
// vectors that are sorted, a selection, which kernels take as a palette of its own.
template <typename Bits>
class TileEntries {
public:
    TileEntries(const RoundEntries& entries, const OrderedGroup<Bits>& ordered)
        : entries_(entries), ordered_(ordered), all_(entries.view()), view_(all_), last_(all_.count) {}

    void find(const SoftTile& tile, int64_t number) {
        if (ordered_.is_sorted()) {
            if (number / kTilesOfBlock != block_) select(block_ = number / kTilesOfBlock);
            return;
        }
        const auto window = entries_.near(tile.lowest, tile.highest);
        first_ = window.first;
        last_ = window.second;
    }
    const SoftEntries& view() const { return view_; }
    int64_t first() const { return first_; }
    int64_t last() const { return last_; }
    bool are_all() const { return !are_selected() && first_ == 0 && last_ == all_.count; }
    bool are_selected() const { return !others_.empty(); }
    template <typename Body>
    void for_each_other(const Body& body) const {
        for (const int64_t j : others_) body(j);
        if (are_selected()) return;
        for (int64_t j = 0; j < first_; ++j) body(j);
        for (int64_t j = last_; j < all_.count; ++j) body(j);
    }
    // `width` numbers of each entry, for kernels that are given view(); put_back writes them where they belong.
    double* take(double* of_all, int64_t width, std::vector<double>& room) const {
        if (!are_selected()) return of_all;
        room.resize(std::max(room.size(), static_cast<std::size_t>(view_.count * width)));
        for (int64_t i = 0; i < view_.count; ++i) {
            const double* const from = of_all + places_[static_cast<std::size_t>(i)] * width;
            double* const to = room.data() + i * width;
            for (int64_t n = 0; n < width; ++n) to[n] = from[n];
        }
        return room.data();
    }
    void put_back(double* of_all, int64_t width, const double* taken) const {
        for (int64_t i = 0; are_selected() && i < view_.count; ++i) {
            const double* const from = taken + i * width;
            double* const to = of_all + places_[static_cast<std::size_t>(i)] * width;
            for (int64_t n = 0; n < width; ++n) to[n] = from[n];
        }
    }

private:
    void select(int64_t block) {
        const int64_t length = all_.length;
        const double* const box = ordered_.box(block);
        nearest_.assign(static_cast<std::size_t>(all_.count), 0);
        double least = std::numeric_limits<double>::infinity();  // of the largest distances
        for (int64_t j = 0; j < all_.count; ++j) {
            double nearest = 0, farthest = 0;
            for (int64_t d = 0; d < length; ++d) {
                const double entry = all_.values[j * length + d];
                const double below = box[2 * d] - entry, above = entry - box[2 * d + 1];
                const double outside = std::max(std::max(below, above), 0.0);
                const double across = std::max(-below, -above);
                nearest += outside * outside;
                farthest += across * across;
            }
            nearest_[static_cast<std::size_t>(j)] = nearest;
            least = farthest < least ? farthest : least;
        }
        const double limit = (least + entries_.reach()) * (1 + 0x1p-40);
        places_.clear();
        others_.clear();
        for (int64_t j = 0; j < all_.count; ++j) {
            (nearest_[static_cast<std::size_t>(j)] > limit ? others_ : places_).push_back(j);
        }
        view_ = all_;
        view_.count = last_ = static_cast<int64_t>(places_.size());
        if (others_.empty()) return;
        view_.special = std::find(places_.begin(), places_.end(), all_.special) - places_.begin();
        values_.resize(static_cast<std::size_t>(view_.count * length));
        for (int64_t i = 0; i < view_.count; ++i) {
            std::copy_n(all_.values + places_[static_cast<std::size_t>(i)] * length, length,
                        values_.data() + i * length);
        }
        view_.values = values_.data();
    }

    const RoundEntries& entries_;
    const OrderedGroup<Bits>& ordered_;
    SoftEntries all_, view_;
    int64_t first_ = 0, last_, block_ = -1;
    std::vector<int64_t> places_, others_;
    std::vector<double> values_, nearest_;
};

}  // namespace corepress
