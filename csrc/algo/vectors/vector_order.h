// An order of vectors in which those that follow each other are close.
#pragma once

#include <cstdint>
#include <vector>

#include "algo/vectors/vector_group.h"

namespace corepress {

// The leaves of a k-d tree from left to right: parts are divided at the mean of the component that varies most,
// as some of the vectors tell. An object keeps its memory between uses.
class VectorOrder {
public:
    static constexpr int64_t kLongest = 4;

    // Brings vectors, planes of `length` components at most kLongest, in that order: order()[place] is the index of one
    // before.
    void sort(float* planes, int64_t stride, int64_t count, int64_t length);
    const std::vector<uint32_t>& order() const { return order_; }

private:
    template <int kLength>
    struct Record {
        float components[kLength];
        uint32_t index;
    };
    template <int kLength>
    void sort_records(float* planes, int64_t stride, int64_t count, std::vector<Record<kLength>>& records);
    template <int kLength>
    void divide(Record<kLength>* records, int64_t count, Record<kLength>* space, int depth);

    std::vector<Record<1>> records1_;
    std::vector<Record<2>> records2_;
    std::vector<Record<3>> records3_;
    std::vector<Record<4>> records4_;
    std::vector<uint32_t> order_;
};

}  // namespace corepress
