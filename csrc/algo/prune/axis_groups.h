// Groups of consecutive elements along one axis, a few at a time, and mask bits for parts of a tensor of any bounds.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/half.h"
#include "core/parallel.h"
#include "core/span.h"
#include "dispatch.h"

namespace corepress {

// `count` groups of `length` rows, each of `width` neighbouring values, rows `stride` apart. Where the stride is the
// width, all of them are one run of values; elsewhere it is one group.
struct Groups {
    int64_t offset;
    int64_t count;
    int64_t length;
    int64_t width;
    int64_t stride;

    bool is_one_run() const { return width == stride; }
    int64_t size() const { return count * length * width; }
};

inline constexpr int64_t kGroupsSize = kGrain;  // values of a task, which stay in the cache with their norms

// Where no group is cut short the tensor is one long axis.
inline GroupLayout joined(const GroupLayout& axis, int64_t length) {
    if (axis.groups % length != 0) return axis;
    return {1, axis.outer * axis.groups, axis.run};
}

// Calls task(for_each) in parallel, where for_each(body) calls body(Groups) for the groups of one task: full ones and
// the shorter ones at the ends of the axis, which lie one after the other. Of groups of more than kGroupsSize values a
// task has a part of the width, at least kNarrow values if there are.
template <typename Task>
void parallel_groups(const GroupLayout& axis, int64_t length, int threads, const Task& task) {
    constexpr int64_t kNarrow = 64;
    const int64_t full = axis.groups / length, tail = axis.groups % length;
    const int64_t per_row = full + (tail != 0 ? 1 : 0);
    const int64_t size = length * axis.run;
    const auto offset_of = [&](int64_t index) { return index / per_row * axis.row_length() + index % per_row * size; };
    const auto length_of = [&](int64_t index) { return index % per_row == full ? tail : length; };
    if (size > kGroupsSize) {
        const int64_t width = std::min(axis.run, std::max(kNarrow, kGroupsSize / length / kNarrow * kNarrow));
        const int64_t parts = (axis.run + width - 1) / width;
        parallel_for(axis.outer * per_row * parts, threads, [&](int64_t part) {
            const int64_t index = part / parts, first = part % parts * width;
            task([&](const auto& body) {
                body(
                    Groups{offset_of(index) + first, 1, length_of(index), std::min(width, axis.run - first), axis.run});
            });
        });
        return;
    }
    parallel_pieces(axis.outer * per_row, kGroupsSize / size, threads, [&](int64_t begin, int64_t end) {
        task([&](const auto& body) {
            for (int64_t index = begin; index < end;) {
                const int64_t group = index % per_row;
                const int64_t count = group == full ? 1 : std::min(full - group, end - index);
                body(Groups{offset_of(index), count, length_of(index), axis.run, axis.run});
                index += count;
            }
        });
    });
}

// The mask bits of what stays. Threads may set disjoint parts at the same time, though they share bytes.
template <typename Bits>
class MaskBits {
public:
    MaskBits(const Bits* values, int64_t count, uint8_t* mask) : values_(values), mask_(mask) {
        std::memset(mask, 0, static_cast<size_t>((count + 7) / 8));
    }

    // Sets the bits from `offset` on where keep is 1 and the value is not zero; returns their number, and raises
    // *largest to the largest magnitude.
    int64_t set(int64_t offset, const uint8_t* keep, int64_t count, Bits* largest) const {
        const int64_t end = offset + count;
        const int64_t first = std::min((offset + 7) / 8 * 8, end), last = std::max(first, end / 8 * 8);
        const auto& loops = kernels_for<Bits>(kernels());
        return set_part_of_byte(offset, first, keep, largest) +
               loops.mask_of_kept(values_ + first, keep + (first - offset), last - first, mask_ + first / 8, largest) +
               set_part_of_byte(last, end, keep + (last - offset), largest);
    }

private:
    // The other bits of the byte may be another thread's.
    int64_t set_part_of_byte(int64_t begin, int64_t end, const uint8_t* keep, Bits* largest) const {
        if (begin == end) return 0;
        int64_t ones = 0;
        unsigned bits = 0;
        for (int64_t i = begin; i < end; ++i) {
            const Bits magnitude = values_[i] & Format<Bits>::kMagnitude;
            const bool is_one = keep[i - begin] != 0 && magnitude != 0;
            *largest = std::max(*largest, magnitude);
            bits |= (is_one ? 1u : 0u) << (i % 8);
            ones += is_one ? 1 : 0;
        }
        __atomic_fetch_or(mask_ + begin / 8, static_cast<uint8_t>(bits), __ATOMIC_RELAXED);
        return ones;
    }

    const Bits* values_;
    uint8_t* mask_;
};

}  // namespace corepress
