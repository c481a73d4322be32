// What the functions of the C interface have in common: a status for each exception, and arguments that were checked.
#pragma once

#include <cstdint>
#include <exception>
#include <new>
#include <vector>

#include "c_api/corepress.h"
#include "core/blocks.h"
#include "core/formats.h"
#include "core/parallel.h"
#include "core/require.h"
#include "core/span.h"
#include "core/stop.h"

namespace corepress::c_api {

struct NonFinite : std::exception {};

// Notes the error of this thread, and returns the status.
corepress_status failed(const char* function, corepress_status status, const char* rule) noexcept;

// What this thread's host has set by corepress_set_cancel().
StopPoll host_poll() noexcept;

// Turns exceptions into a status; nothing may leave the library otherwise.
template <typename Body>
corepress_status guarded(const char* function, const Body& body) noexcept {
    try {
        StopFlag flag;
        const StopScope scope(&flag, host_poll());
        body();
        return COREPRESS_OK;
    } catch (const Stopped&) {
        return failed(function, COREPRESS_CANCELLED, "the host asked for the end of the call");
    } catch (const NonFinite&) {
        return failed(function, COREPRESS_NON_FINITE, "weights are NaN or infinite");
    } catch (const std::invalid_argument& error) {
        return failed(function, COREPRESS_INVALID_ARGUMENT, error.what());
    } catch (const std::bad_alloc&) {
        return failed(function, COREPRESS_OUT_OF_MEMORY, "out of memory");
    } catch (const std::exception& error) {
        return failed(function, COREPRESS_FAILED, error.what());
    }
}

inline void require_given(const void* pointer, const char* name) {
    require(pointer != nullptr, name, " must not be NULL");
}

inline void require_palette_width(int nbits) {
    require(is_palette_width(nbits), "nbits must be 1, 2, 3, 4, 6 or 8, not ", nbits);
}

void require_importance(const float* importance, int64_t size);

// A shape that has been checked.
class Shape {
public:
    explicit Shape(const corepress_shape* shape);

    int64_t size() const { return size_; }
    int rank() const { return static_cast<int>(axes_.size()); }
    int64_t operator[](int axis) const { return axes_[static_cast<size_t>(axis)]; }
    FloatFormat format() const { return format_; }

    void require_axis(int axis) const;
    void require_not_empty() const { require(size_ > 0, "the tensor has no elements"); }

    // Seen along an axis, `length` entries of which belong together.
    GroupLayout along(int axis, int64_t length) const;

private:
    FloatFormat format_ = FloatFormat::kHalf;
    std::vector<int64_t> axes_;
    int64_t size_ = 1;
};

GroupLayout layout_of(const Shape& shape, corepress_groups groups);

BlockLayout layout_of(const Shape& shape, const int64_t* block_size);

}  // namespace corepress::c_api
