// Bounds of every kBox vectors that follow each other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/table.h"

namespace corepress {

class VectorBoxes {
public:
    // Planes [length, stride], the stride a multiple of kBox.
    void find(const float* planes, int64_t stride, int64_t count, int64_t length) {
        stride_ = stride / kBox;
        lowest_.assign(static_cast<size_t>(length * stride_), 0.0f);
        highest_.assign(lowest_.size(), 0.0f);
        for (int64_t c = 0; c < length; ++c) {
            for (int64_t begin = 0; begin < count; begin += kBox) {
                const float* const plane = planes + c * stride;
                const auto bounds = std::minmax_element(plane + begin, plane + std::min(begin + kBox, count));
                const auto box = static_cast<size_t>(c * stride_ + begin / kBox);
                lowest_[box] = *bounds.first;
                highest_[box] = *bounds.second;
            }
        }
    }

    // From a vector on whose index is a multiple of kBox.
    BoxPlanes at(int64_t begin) const {
        return {lowest_.data() + begin / kBox, highest_.data() + begin / kBox, stride_};
    }

private:
    int64_t stride_ = 0;
    std::vector<float> lowest_, highest_;
};

}  // namespace corepress
