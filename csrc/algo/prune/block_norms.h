// Norms of blocks along one axis, as sums of squares in double, computed again whenever they are needed: held for all
// blocks they would take as much memory as the weights and more.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "algo/prune/axis_groups.h"
#include "algo/prune/slots.h"
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

    // The norm of a rank among those of all elements' blocks. A sample tells an interval that it most likely lies in,
    // of which few enough norms are in memory together; elsewhere intervals are counted in equal slots, and so is the
    // slot that holds the rank, until few enough norms are left.
    double of_rank(int64_t rank) const {
        constexpr Interval kAll{0, 47};
        const std::optional<Interval> sampled = near_sample(rank);
        if (sampled && axis_.size() / block_size_ <= kMost / 2 * kSampledShare) {
            if (const auto norm = of_rank_in(*sampled, rank)) return *norm;
        }
        Interval interval = sampled.value_or(kAll);
        for (bool is_guess = sampled.has_value();; is_guess = false) {
            const auto [counts, below] = count(interval);
            int64_t within = rank - below, inside = 0;
            for (const int64_t each : counts) inside += each;
            if (is_guess && (within < 0 || within >= inside)) {  // the sample misled
                interval = kAll;
                continue;
            }
            // Otherwise the rank lies in the interval, unless norms are NaN or change between counts. Then one is as
            // good as another, but each turn must make the interval smaller.
            const uint32_t slot = find_rank(counts, within);
            const Interval found{interval.first + (uint64_t{slot} << interval.shift), 0, uint64_t{1} << interval.shift};
            if (interval.shift == 0) return value_of(found.first);
            if (counts[slot] <= kFew) {
                if (const auto norm = of_rank_in(found, rank)) return *norm;
            }
            interval = {found.first, std::max(interval.shift - 16, 0)};
        }
    }

private:
    static constexpr int64_t kFew = int64_t{1} << 16;
    static constexpr int64_t kMost = int64_t{1} << 20;  // norms held at a time
    static constexpr int64_t kSample = 8192;
    static constexpr int64_t kMargin = 226;  // five standard deviations of a rank near the middle
    static constexpr int64_t kSampledShare = kSample / (2 * kMargin);  // of all, those between the bounds

    // Bits of norms, which sort as the norms do since none is negative: kPatterns slots of 2^shift
    // each from `first` on, or `length` of them.
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

    // Calls body(keys, count, elements of a block, elements of blocks below) with those in the interval, some at a
    // time, and an object of type State that one thread has at a time; returns the objects.
    template <typename State, typename Body>
    std::vector<std::unique_ptr<State>> take(const Interval& interval, const Body& body) const {
        WorkspacePool<State> states;
        WorkspacePool<std::vector<uint64_t>> spaces;
        for_each([&](const Groups& blocks, const double* norms) {
            auto keys = spaces.borrow();
            auto state = states.borrow();
            const int64_t norm_count = blocks.count * blocks.width;
            keys->resize(std::max(keys->size(), static_cast<size_t>(norm_count + 7)));
            int64_t below = 0;
            const int64_t found =
                kernels().take_sums_between(norms, norm_count, interval.first, interval.length, keys->data(), &below);
            body(keys->data(), found, blocks.length, below * blocks.length, *state);
        });
        return std::move(states.objects());
    }

    // Elements by the slots of the interval, and how many elements have norms below it.
    std::pair<Counts, int64_t> count(const Interval& interval) const {
        struct Counter {
            Counts slots = Counts(kPatterns, 0);
            int64_t below = 0;
        };
        const auto counters = take<Counter>(
            interval, [&](const uint64_t* keys, int64_t found, int64_t elements, int64_t below, Counter& counter) {
                counter.below += below;
                for (int64_t i = 0; i < found; ++i) {
                    counter.slots[(keys[i] - interval.first) >> interval.shift] += elements;
                }
            });
        std::pair<Counts, int64_t> total{Counts(kPatterns, 0), 0};
        for (const auto& counter : counters) {
            for (size_t i = 0; i < total.first.size(); ++i) total.first[i] += counter->slots[i];
            total.second += counter->below;
        }
        return total;
    }

    // The norm of a rank, if it lies in the interval and no more than kMost norms do.
    std::optional<double> of_rank_in(const Interval& interval, int64_t rank) const {
        struct Found {
            std::vector<uint64_t> full, shorter;  // by the length of their blocks
            int64_t below = 0;
        };
        std::vector<uint64_t> full, shorter;
        std::atomic<int64_t> held{0};
        for (const auto& found : take<Found>(
                 interval, [&](const uint64_t* keys, int64_t count, int64_t elements, int64_t below, Found& to) {
                     to.below += below;
                     if ((held += count) > kMost) return;
                     auto& same = elements == block_size_ ? to.full : to.shorter;
                     same.insert(same.end(), keys, keys + count);
                 })) {
            full.insert(full.end(), found->full.begin(), found->full.end());
            shorter.insert(shorter.end(), found->shorter.begin(), found->shorter.end());
            rank -= found->below;
        }
        if (held > kMost) return std::nullopt;
        const int64_t tail = axis_.groups % block_size_;
        const auto count_of = [](const std::vector<uint64_t>& keys) { return static_cast<int64_t>(keys.size()); };
        if (rank < 0 || rank >= count_of(full) * block_size_ + count_of(shorter) * tail) return std::nullopt;
        if (shorter.empty()) {
            const auto place = full.begin() + rank / block_size_;
            std::nth_element(full.begin(), place, full.end());
            return value_of(*place);
        }
        std::sort(full.begin(), full.end());
        std::sort(shorter.begin(), shorter.end());
        for (auto next = full.begin(), other = shorter.begin();;) {
            const bool is_full = other == shorter.end() || (next != full.end() && *next < *other);
            const uint64_t key = is_full ? *next++ : *other++;
            rank -= is_full ? block_size_ : tail;
            if (rank < 0) return value_of(key);
        }
    }

    // The norms of a few elements' blocks tell two bounds that the norm of the rank most likely lies between. No result
    // where these few would take a large part of the time of all.
    std::optional<Interval> near_sample(int64_t rank) const {
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
            // By their bits, which are ordered even where some are NaN.
            std::nth_element(sample.begin(), sample.begin() + at, sample.end(),
                             [](double a, double b) { return bits_of(a) < bits_of(b); });
            return bits_of(sample[static_cast<size_t>(at)]);
        };
        const int64_t near = static_cast<int64_t>(static_cast<double>(rank) / static_cast<double>(count) * kSample);
        const uint64_t first = near < kMargin ? 0 : of_sample(near - kMargin);
        const uint64_t last = near + kMargin < kSample ? of_sample(near + kMargin) : std::max(first, bits_of(HUGE_VAL));
        int shift = 0;
        while ((last - first) >> shift >= uint64_t{kPatterns}) ++shift;
        return Interval{first, shift, last - first + 1};
    }

    const Bits* values_;
    GroupLayout axis_;
    int64_t block_size_;
    int threads_;
};

}  // namespace corepress
