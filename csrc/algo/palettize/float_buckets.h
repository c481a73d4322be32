// Floats in some 32,768 buckets by their keys, finer where a fine cut between clusters is worth more.
#pragma once

#include <cstdint>
#include <vector>

#include "core/half.h"

namespace corepress {

// The place of a value's upper 16 bits in key order.
template <typename Bits>
int upper_pattern(typename Format<Bits>::Key key) {
    return (static_cast<int32_t>(key) >> (Format<Bits>::kWidth - 16)) + kPatterns / 2;
}

class FloatBuckets {
public:
    // Divides the budget of buckets by (weight * width^2)^(1/3), as clusters would divide the line. `count` and
    // `weight` give, for the upper 16 bits as they are stored, how many values share them and what these weigh
    // together.
    template <typename Count, typename Weight>
    void divide(const Count& count, const Weight& weight) {
        std::vector<Share> shares;
        for (int pattern = 0; pattern < kPatterns; ++pattern) {
            const double values = static_cast<double>(count(stored_pattern(pattern)));
            if (values > 0) {
                shares.push_back({pattern, values, static_cast<double>(weight(stored_pattern(pattern))), false});
            }
        }
        divide(shares);
    }

    size_t size() const { return parts_.empty() ? 0 : parts_.back().end; }
    // Less than size() for every key: values of a pattern that was not counted have the first bucket of a later one, or
    // the last. There are such where values change after the division.
    uint32_t of(int32_t key) const {
        const size_t pattern = static_cast<size_t>(upper_pattern<uint32_t>(key));
        return first_[pattern] + ((static_cast<uint32_t>(key) & 0xffffu) >> shift_[pattern]);
    }

    // Calls body(bucket, mean) in ascending order; mean(low) is the value at `low`, a mean of the keys' lower 16 bits.
    template <typename Body>
    void for_each(const Body& body) const {
        for (const Part& part : parts_) {
            const double first = first_value(part.pattern), step = value_step(part.pattern);
            const auto mean = [first, step](double low) { return first + step * low; };
            for (uint32_t bucket = part.begin; bucket < part.end; ++bucket) body(bucket, mean);
        }
    }

private:
    struct Share {
        int pattern;
        double count, mass;
        bool full;
    };
    // The buckets of a pattern that occurs.
    struct Part {
        int pattern;
        uint32_t begin, end;
    };
    // The first value of those that share their upper 16 bits, and the step from one to the next there.
    static double first_value(int pattern) {
        return value_of_key<uint32_t>(static_cast<int64_t>(pattern - kPatterns / 2) * kPatterns);
    }
    static double value_step(int pattern) {
        return value_of_key<uint32_t>(static_cast<int64_t>(pattern - kPatterns / 2) * kPatterns + 1) -
               first_value(pattern);
    }
    void divide(std::vector<Share>& shares);  // whose mass is the weight so far

    std::vector<Part> parts_;
    std::vector<uint32_t> first_;  // bucket, per pattern of the upper 16 bits, in key order
    std::vector<uint8_t> shift_;
};

}  // namespace corepress
