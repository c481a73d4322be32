// Long loops that can be stopped.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/stop.h"

namespace corepress {

// Calls body(i) for 0 <= i < count in turn, and check_stop() every some hundred microseconds.
template <typename Body>
void for_each_in_parts(int64_t count, Body&& body) {
    constexpr int64_t kPart = 1 << 15;
    for (int64_t begin = 0; begin < count; begin += kPart) {
        check_stop();
        const int64_t end = std::min(begin + kPart, count);
        for (int64_t i = begin; i < end; ++i) body(i);
    }
}

}  // namespace corepress
