// Bounds of every kBox vectors that follow each other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/parallel.h"
#include "kernels/table.h"

namespace corepress {

class VectorBoxes {
public:
    // Planes [length, stride], the stride a multiple of kBox.
    void find(const float* planes, int64_t stride, int64_t count, int64_t length, int threads) {
        stride_ = stride / kBox;
        lowest_.assign(static_cast<size_t>(length * stride_), 0.0f);
        highest_.assign(lowest_.size(), 0.0f);
        parallel_pieces(count, kGrain / 4, threads, [&](int64_t first, int64_t last) {
            for (int64_t c = 0; c < length; ++c) {
                for (int64_t begin = first; begin < last; begin += kBox) {
                    const auto box = static_cast<size_t>(c * stride_ + begin / kBox);
                    bound(planes + c * stride + begin, std::min(kBox, last - begin), &lowest_[box], &highest_[box]);
                }
            }
        });
    }

    // From a vector on whose index is a multiple of kBox.
    BoxPlanes at(int64_t begin) const {
        return {lowest_.data() + begin / kBox, highest_.data() + begin / kBox, stride_};
    }

private:
    static void bound(const float* values, int64_t count, float* lowest, float* highest) {
        constexpr int64_t kLanes = 8;
        if (count < kLanes) {
            const auto bounds = std::minmax_element(values, values + count);
            *lowest = *bounds.first;
            *highest = *bounds.second;
            return;
        }
        // Lanes, since compilers keep the order of comparisons of floats; the last ones may overlap those before.
        float low[kLanes], high[kLanes];
        for (int64_t lane = 0; lane < kLanes; ++lane) low[lane] = high[lane] = values[lane];
        for (int64_t i = kLanes; i < count; i += kLanes) {
            const float* const some = values + std::min(i, count - kLanes);
            for (int64_t lane = 0; lane < kLanes; ++lane) {
                low[lane] = some[lane] < low[lane] ? some[lane] : low[lane];
                high[lane] = some[lane] > high[lane] ? some[lane] : high[lane];
            }
        }
        *lowest = *std::min_element(low, low + kLanes);
        *highest = *std::max_element(high, high + kLanes);
    }

    int64_t stride_ = 0;
    std::vector<float> lowest_, highest_;
};

}  // namespace corepress
