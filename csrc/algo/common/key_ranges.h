// The smallest and the largest key of each block of a tensor.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <vector>

#include "algo/common/block_pieces.h"
#include "core/half.h"
#include "core/workspace.h"
#include "dispatch.h"

namespace corepress {

template <typename Bits>
using KeyOf = typename Format<Bits>::Key;

template <typename Key>
struct Ranges {
    std::vector<Key> lowest, highest;

    void reset(int64_t count) {
        lowest.assign(static_cast<size_t>(count), std::numeric_limits<Key>::max());
        highest.assign(static_cast<size_t>(count), std::numeric_limits<Key>::min());
    }
};

// Calls merge(group, low, high) with ranges of parts of blocks; `scratch` is memory for it.
template <typename Bits, typename Merge>
void find_ranges(const Bits* values, const BlockLayout& layout, int64_t begin, int64_t end,
                 Ranges<KeyOf<Bits>>& scratch, const Merge& merge) {
    const auto& kernels = kernels_for<Bits>(corepress::kernels());
    const auto runs = [&](int64_t group, int64_t offset, int64_t count, int64_t length) {
        scratch.reset(count);
        kernels.run_key_ranges(values + offset, count, length, scratch.lowest.data(), scratch.highest.data());
        for (int64_t i = 0; i < count; ++i) {
            merge(group + i, scratch.lowest[static_cast<size_t>(i)], scratch.highest[static_cast<size_t>(i)]);
        }
    };
    const auto rows = [&](int64_t group, int64_t column, int64_t offset, int64_t count, int64_t columns) {
        scratch.reset(columns);
        kernels.column_key_range(values + offset, count, columns, scratch.lowest.data(), scratch.highest.data());
        for (int64_t i = 0; i < columns; ++i) {
            merge(group + (column + i) / layout.run(), scratch.lowest[static_cast<size_t>(i)],
                  scratch.highest[static_cast<size_t>(i)]);
        }
    };
    walk(layout, begin, end, runs, rows);
}

template <typename Bits>
bool are_finite(const KeyOf<Bits>* lowest, const KeyOf<Bits>* highest, int64_t count) {
    bool finite = true;
    for (int64_t i = 0; i < count; ++i) finite &= is_finite_range<Bits>(lowest[i], highest[i]);
    return finite;
}

template <typename Value>
void lower(std::atomic<Value>& target, Value value) {
    Value seen = target.load(std::memory_order_relaxed);
    while (value < seen && !target.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
    }
}

template <typename Value>
void raise(std::atomic<Value>& target, Value value) {
    Value seen = target.load(std::memory_order_relaxed);
    while (value > seen && !target.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
    }
}

// Of all blocks, which may be spread over the tensor.
template <typename Bits>
Ranges<KeyOf<Bits>> ranges_of_blocks(const Bits* values, const BlockLayout& layout, int threads) {
    using Key = KeyOf<Bits>;
    const auto groups = static_cast<size_t>(layout.groups());
    std::vector<std::atomic<Key>> lowest(groups), highest(groups);
    for (auto& key : lowest) key.store(std::numeric_limits<Key>::max(), std::memory_order_relaxed);
    for (auto& key : highest) key.store(std::numeric_limits<Key>::min(), std::memory_order_relaxed);
    WorkspacePool<Ranges<Key>> scratches;
    for_each_piece(layout, threads, [&](int64_t begin, int64_t end) {
        auto scratch = scratches.borrow();
        find_ranges(values, layout, begin, end, *scratch, [&](int64_t group, Key low, Key high) {
            lower(lowest[static_cast<size_t>(group)], low);
            raise(highest[static_cast<size_t>(group)], high);
        });
    });
    return {{lowest.begin(), lowest.end()}, {highest.begin(), highest.end()}};
}

}  // namespace corepress
