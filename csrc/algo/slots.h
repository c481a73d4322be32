// Order statistics by counting: how many values fall into each slot of 16 bits of their keys.
#pragma once

#include <cstdint>
#include <vector>

#include "core/half.h"
#include "core/parallel.h"
#include "core/workspace.h"

namespace corepress {

using Counts = std::vector<int64_t>;

// add(begin, end, counts) counts the values of one piece of [0, count).
template <typename Add>
Counts count_slots(int64_t count, int threads, const Add& add) {
    constexpr int64_t kPiece = int64_t{1} << 20;
    WorkspacePool<Counts> workers;
    parallel_pieces(count, kPiece, threads, [&](int64_t begin, int64_t end) {
        auto worker = workers.borrow();
        worker->resize(kPatterns, 0);
        add(begin, end, worker->data());
    });
    Counts total(kPatterns, 0);
    for (const auto& worker : workers.objects()) {
        for (size_t i = 0; i < total.size(); ++i) total[i] += (*worker)[i];
    }
    return total;
}

// The slot that holds `rank`, which becomes the rank within it.
inline uint32_t find_rank(const Counts& counts, int64_t& rank) {
    uint32_t slot = 0;
    while (rank >= counts[slot]) rank -= counts[slot++];
    return slot;
}

}  // namespace corepress
