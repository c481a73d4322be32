// Norms of blocks along one axis, as sums of squares in double, computed again whenever they are needed: held for all
// blocks they would take as much memory as the weights and more.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "algo/axis_groups.h"
#include "algo/slots.h"
#include "core/span.h"
#include "core/workspace.h"
#include "dispatch.h"

namespace corepress {

template <typename Bits>
class BlockNorms {
public:
    BlockNorms(const Bits* values, const GroupLayout& axis, int64_t block_size, int threads)
        : values_(values), axis_(axis), block_size_(block_size), threads_(threads) {}

    // Calls body(Groups, norms) for some blocks at a time, in parallel: width norms for each of them.
    template <typename Body>
    void for_each(const Body& body) const {
        const auto& loops = kernels_for<Bits>(kernels());
        WorkspacePool<std::vector<double>> workspaces;
        parallel_groups(axis_, block_size_, threads_, [&](const auto& for_each_groups) {
            auto norms = workspaces.borrow();
            for_each_groups([&](const Groups& blocks) {
                norms->resize(std::max(norms->size(), static_cast<size_t>(blocks.count * blocks.width)));
                loops.sum_block_squares(values_ + blocks.offset, blocks.count, blocks.length, blocks.width,
                                        blocks.stride, norms->data());
                body(blocks, static_cast<const double*>(norms->data()));
            });
        });
    }

    // The norm of a rank among those of all elements' blocks. Bits of doubles that are not negative sort as the doubles
    // do: an interval of them, which a sample tells, is counted in equal slots, and so is the slot that holds the rank,
    // until few enough norms are left to be sorted.
    double of_rank(int64_t rank) const {
        constexpr int64_t kFew = int64_t{1} << 16;
        constexpr Interval kAll{0, 47};
        Interval interval = near_sample(rank).value_or(kAll);
        for (;;) {
            const auto [counts, below] = count(interval);
            int64_t within = rank - below, inside = 0;
            for (const int64_t each : counts) inside += each;
            if (within < 0 || within >= inside) {  // the sample misled
                interval = kAll;
                continue;
            }
            const uint32_t slot = find_rank(counts, within);
            const Interval narrow{interval.first + (uint64_t{slot} << interval.shift), 0,
                                  uint64_t{1} << interval.shift};
            if (interval.shift == 0) return value_of(narrow.first);
            if (counts[slot] <= kFew) return of_rank_in(narrow, within);
            interval = {narrow.first, std::max(interval.shift - 16, 0)};
        }
    }

private:
    // Bits of norms from `first` on: kPatterns slots of 2^shift each, or `length` of them.
    struct Interval {
        uint64_t first;
        int shift;
        uint64_t length = uint64_t{kPatterns} << shift;
    };

    static uint64_t bits_of(double value) {
        uint64_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        return bits;
    }

    static double value_of(uint64_t bits) {
        double value;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    }

    // Elements by the slots of the interval, and how many elements have norms below it.
    std::pair<Counts, int64_t> count(const Interval& interval) const {
        struct Counter {
            Counts slots = Counts(kPatterns, 0);
            int64_t below = 0;
        };
        WorkspacePool<Counter> counters;
        const double first = value_of(interval.first);
        for_each([&](const Groups& blocks, const double* norms) {
            auto counter = counters.borrow();
            const int64_t norm_count = blocks.count * blocks.width;
            int64_t below = 0;
            for (int64_t i = 0; i < norm_count; ++i) below += norms[i] < first ? 1 : 0;
            counter->below += below * blocks.length;
            for (int64_t i = 0; i < norm_count; ++i) {
                const uint64_t place = bits_of(norms[i]) - interval.first;
                if (place < interval.length) counter->slots[place >> interval.shift] += blocks.length;
            }
        });
        std::pair<Counts, int64_t> total{Counts(kPatterns, 0), 0};
        for (const auto& counter : counters.objects()) {
            for (size_t i = 0; i < total.first.size(); ++i) total.first[i] += counter->slots[i];
            total.second += counter->below;
        }
        return total;
    }

    double of_rank_in(const Interval& interval, int64_t rank) const {
        std::vector<std::pair<double, int64_t>> found;  // norms, and the elements they stand for
        std::mutex mutex;
        for_each([&](const Groups& blocks, const double* norms) {
            const int64_t norm_count = blocks.count * blocks.width;
            for (int64_t i = 0; i < norm_count; ++i) {
                if (bits_of(norms[i]) - interval.first >= interval.length) continue;
                const std::lock_guard<std::mutex> lock(mutex);
                found.emplace_back(norms[i], blocks.length);
            }
        });
        std::sort(found.begin(), found.end());
        size_t at = 0;
        while (rank >= found[at].second) rank -= found[at++].second;
        return found[at].first;
    }

    // The norms of a few elements' blocks tell two bounds that the norm of the rank most likely lies between. No result
    // where these few would take a large part of the time of all.
    std::optional<Interval> near_sample(int64_t rank) const {
        constexpr int64_t kSample = 4096;
        constexpr int64_t kMargin = 160;  // five standard deviations of a rank near the middle
        const int64_t count = axis_.size();
        if (count / kSample < 64 * block_size_) return std::nullopt;
        const auto& loops = kernels_for<Bits>(kernels());
        const int64_t stride = count / kSample;
        std::array<double, kSample> sample;
        uint32_t scattered = 0;  // since a regular step could meet one column only
        for (int64_t i = 0; i < kSample; ++i, scattered += 2654435769u) {
            const int64_t within = static_cast<int64_t>(uint64_t{scattered} * static_cast<uint64_t>(stride) >> 32);
            const int64_t element = i * stride + within, row = element / axis_.run;
            const int64_t place = row % axis_.groups % block_size_, first = row % axis_.groups - place;
            loops.sum_block_squares(values_ + element - place * axis_.run, 1,
                                    std::min(block_size_, axis_.groups - first), 1, axis_.run,
                                    &sample[static_cast<size_t>(i)]);
        }
        const auto of_sample = [&](int64_t at) {
            std::nth_element(sample.begin(), sample.begin() + at, sample.end());
            return bits_of(sample[static_cast<size_t>(at)]);
        };
        const int64_t near = static_cast<int64_t>(static_cast<double>(rank) / static_cast<double>(count) * kSample);
        const uint64_t first = near < kMargin ? 0 : of_sample(near - kMargin);
        const uint64_t last = near + kMargin < kSample ? of_sample(near + kMargin) : bits_of(HUGE_VAL);
        int shift = 0;
        while ((last - first) >> shift >= uint64_t{kPatterns}) ++shift;
        return Interval{first, shift};
    }

    const Bits* values_;
    GroupLayout axis_;
    int64_t block_size_;
    int threads_;
};

}  // namespace corepress
