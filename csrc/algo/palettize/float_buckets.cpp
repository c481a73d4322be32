#include "algo/palettize/float_buckets.h"

#include <algorithm>
#include <cmath>

#include "core/cube_root.h"

namespace corepress {

// A pattern needs no more buckets than it has values; what it leaves goes to the others, so that a few far values do
// not take all.
void FloatBuckets::divide(std::vector<Share>& shares) {
    constexpr int kBuckets = 1 << 15;
    for (Share& share : shares) {
        const double width = value_step(share.pattern) * kPatterns;
        const double mass = share.mass * width * width;
        share.mass = std::isfinite(mass) ? cube_root(mass) : 0;
    }
    double per_mass = 0;
    for (bool changed = true; changed;) {
        double budget = kBuckets, mass = 0;
        for (const Share& share : shares) (share.full ? budget : mass) += share.full ? -share.count : share.mass;
        per_mass = mass > 0 ? std::max(budget, 0.0) / mass : 0;
        changed = false;
        for (Share& share : shares) {
            if (share.full || share.mass * per_mass < share.count) continue;
            share.full = changed = true;
        }
    }
    parts_.clear();
    first_.clear();
    first_.reserve(kPatterns);
    shift_.assign(kPatterns, 16);
    uint32_t next = 0;
    for (const Share& share : shares) {
        const double buckets = share.full ? share.count : share.mass * per_mass;
        int bits = 0;
        while (bits < 16 && static_cast<double>(1 << bits) < buckets) ++bits;
        shift_[static_cast<size_t>(share.pattern)] = static_cast<uint8_t>(16 - bits);
        first_.resize(static_cast<size_t>(share.pattern) + 1, next);
        parts_.push_back({share.pattern, next, next + (1u << bits)});
        next = parts_.back().end;
    }
    first_.resize(kPatterns, std::max(next, 1u) - 1);
}

}  // namespace corepress
