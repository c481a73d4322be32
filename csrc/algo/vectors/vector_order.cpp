#include "algo/vectors/vector_order.h"

#include <algorithm>

#include "core/parallel.h"
#include "core/stop.h"

namespace corepress {

void VectorOrder::sort(float* planes, int64_t stride, int64_t count, int64_t length) {
    order_.resize(static_cast<size_t>(count));
    switch (length) {
        case 1: return sort_records<1>(planes, stride, count, records1_);
        case 2: return sort_records<2>(planes, stride, count, records2_);
        case 3: return sort_records<3>(planes, stride, count, records3_);
        default: return sort_records<4>(planes, stride, count, records4_);
    }
}

template <int kLength>
void VectorOrder::sort_records(float* planes, int64_t stride, int64_t count, std::vector<Record<kLength>>& records) {
    records.resize(static_cast<size_t>(2 * count));
    for (int64_t i = 0; i < count; ++i) {
        Record<kLength>& record = records[static_cast<size_t>(i)];
        for (int c = 0; c < kLength; ++c) record.components[c] = planes[c * stride + i];
        record.index = static_cast<uint32_t>(i);
    }
    divide<kLength>(records.data(), count, records.data() + count, 0);
    for (int64_t i = 0; i < count; ++i) {
        const Record<kLength>& record = records[static_cast<size_t>(i)];
        for (int c = 0; c < kLength; ++c) planes[c * stride + i] = record.components[c];
        order_[static_cast<size_t>(i)] = record.index;
    }
}

// The means of far outliers divide nothing off but those, hence a limit to the depth.
template <int kLength>
void VectorOrder::divide(Record<kLength>* records, int64_t count, Record<kLength>* space, int depth) {
    constexpr int64_t kLeaf = 16;
    constexpr int kDeepest = 40;
    if (count <= kLeaf || depth == kDeepest) return;
    if (count > kGrain) check_stop();
    constexpr int64_t kLooks = 64;
    const int64_t step = std::max<int64_t>(1, count / kLooks), looks = (count + step - 1) / step;
    double sums[kLength] = {}, squares[kLength] = {};
    for (int64_t i = 0; i < count; i += step) {
        for (int c = 0; c < kLength; ++c) {
            const double value = static_cast<double>(records[i].components[c] - records[0].components[c]);
            sums[c] += value;
            squares[c] += value * value;
        }
    }
    int widest = 0;
    double largest = -1;
    for (int c = 0; c < kLength; ++c) {
        const double variance = squares[c] - sums[c] * sums[c] / static_cast<double>(looks);
        if (variance > largest) {
            largest = variance;
            widest = c;
        }
    }
    const double mean = static_cast<double>(records[0].components[widest]) + sums[widest] / static_cast<double>(looks);
    const auto limit = static_cast<float>(mean);
    int64_t below = 0, above = 0;
    for (int64_t i = 0; i < count; ++i) {  // without branches: they would be guessed wrong half of the time
        const Record<kLength> record = records[i];
        const bool less = record.components[widest] < limit;
        records[below] = record;
        space[above] = record;
        below += less;
        above += !less;
    }
    std::copy(space, space + above, records + below);
    if (below == 0 || above == 0) return;
    divide<kLength>(records, below, space, depth + 1);
    divide<kLength>(records + below, above, space, depth + 1);
}

}  // namespace corepress
