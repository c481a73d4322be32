// Sorting that can be stopped: millions of numbers take seconds.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/stop.h"

namespace corepress {

// Gives what std::stable_sort gives. An object keeps its memory between calls.
template <typename T>
class StableSorter {
public:
    template <typename Less>
    void sort(std::vector<T>& items, const Less& less) {
        const size_t count = items.size();
        for (size_t begin = 0; begin < count; begin += kPart) {
            check_stop();
            std::stable_sort(at(items, begin), at(items, std::min(begin + kPart, count)), less);
        }
        for (size_t sorted = kPart; sorted < count; sorted *= 2) {
            merged_.clear();
            merged_.reserve(count);
            for (size_t begin = 0; begin < count; begin += 2 * sorted) {
                merge(items, begin, std::min(begin + sorted, count), std::min(begin + 2 * sorted, count), less);
            }
            items.swap(merged_);
        }
    }

private:
    static constexpr size_t kPart = size_t{1} << 18;

    static typename std::vector<T>::iterator at(std::vector<T>& items, size_t index) {
        return items.begin() + static_cast<std::ptrdiff_t>(index);
    }

    template <typename Less>
    void merge(const std::vector<T>& items, size_t first, size_t middle, size_t end, const Less& less) {
        for (size_t left = first, right = middle; left < middle || right < end;) {
            if (merged_.size() % kPart == 0) check_stop();
            const bool from_right = left == middle || (right < end && less(items[right], items[left]));
            merged_.push_back(items[from_right ? right++ : left++]);
        }
    }

    std::vector<T> merged_;
};

}  // namespace corepress
