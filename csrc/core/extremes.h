// The smallest and the largest of what several threads find.
#pragma once

#include <atomic>

namespace corepress {

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

}  // namespace corepress
