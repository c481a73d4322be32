// Order statistics by counting: how many values fall into each slot of 16 bits of their keys.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/half.h"
#include "core/parallel.h"
#include "core/workspace.h"

namespace corepress {

using Counts = std::vector<int64_t>;

// What one thread counts. Neighbours in `even` and `odd` do not wait for each other where they are equal, and counters
// of 32 bits take half the cache; flush() adds them to the total before they can overflow.
struct SlotCounter {
    Counts total = Counts(kPatterns, 0);
    std::vector<uint32_t> even = std::vector<uint32_t>(kPatterns, 0);
    std::vector<uint32_t> odd = std::vector<uint32_t>(kPatterns, 0);

    void flush() {
        for (size_t i = 0; i < total.size(); ++i) total[i] += int64_t{even[i]} + odd[i];
        std::fill(even.begin(), even.end(), 0);
        std::fill(odd.begin(), odd.end(), 0);
    }
};

// add(begin, end, counter) counts the values of one piece of [0, count).
template <typename Add>
Counts count_slots(int64_t count, int threads, const Add& add) {
    constexpr int64_t kPiece = int64_t{1} << 20;
    WorkspacePool<SlotCounter> workers;
    parallel_pieces(count, kPiece, threads, [&](int64_t begin, int64_t end) { add(begin, end, *workers.borrow()); });
    Counts total(kPatterns, 0);
    for (const auto& worker : workers.objects()) {
        for (size_t i = 0; i < total.size(); ++i) total[i] += worker->total[i];
    }
    return total;
}

// The slot that holds `rank`, which becomes the rank within it. The last slot if it is beyond all counts, as it can be
// where values change between two counts.
inline uint32_t find_rank(const Counts& counts, int64_t& rank) {
    uint32_t slot = 0;
    while (slot + 1 < counts.size() && rank >= counts[slot]) rank -= counts[slot++];
    return slot;
}

}  // namespace corepress
