#include "c_api/checks.h"

#include <cstdio>
#include <limits>
#include <string>

#include "dispatch.h"

namespace corepress::c_api {
namespace {

// Not a string: GCC for Windows destroys what a thread owns after giving its memory back.
thread_local char last_error[1024];
thread_local corepress_cancel cancel_of_host = nullptr;
thread_local void* context_of_host = nullptr;

bool asks_host(void*) { return cancel_of_host(context_of_host) != 0; }

}  // namespace

StopPoll host_poll() noexcept { return {cancel_of_host == nullptr ? nullptr : &asks_host, nullptr}; }

corepress_status failed(const char* function, corepress_status status, const char* rule) noexcept {
    std::snprintf(last_error, sizeof last_error, "%s: %s", function, rule);
    return status;
}

void require_importance(const float* importance, int64_t size) {
    for (int64_t i = 0; importance != nullptr && i < size; ++i) {
        require(importance[i] >= 0 && importance[i] <= std::numeric_limits<float>::max(),
                "importance must be finite and not negative, not ", importance[i]);
    }
}

Shape::Shape(const corepress_shape* shape) {
    require_given(shape, "shape");
    require(shape->dtype >= COREPRESS_FLOAT16 && shape->dtype <= COREPRESS_FLOAT32, "dtype ",
            static_cast<int>(shape->dtype), " is unknown");
    constexpr int kMostAxes = 32;
    require(shape->rank >= 0 && shape->rank <= kMostAxes, "rank must be 0 to ", kMostAxes, ", not ", shape->rank);
    if (shape->rank > 0) require_given(shape->shape, "shape->shape");
    format_ = static_cast<FloatFormat>(shape->dtype);
    axes_.assign(shape->shape, shape->shape + shape->rank);
    for (const int64_t length : axes_) {
        require(length >= 0, "shape has an axis of ", length);
        require(length == 0 || size_ <= std::numeric_limits<int64_t>::max() / 8 / length, "shape is too large");
        size_ *= length;
    }
}

void Shape::require_axis(int axis) const {
    require(axis >= 0 && axis < rank(), "axis must be from 0 to ", rank() - 1, ", not ", axis);
}

GroupLayout Shape::along(int axis, int64_t length) const {
    require_axis(axis);
    GroupLayout layout{1, (*this)[axis] / length, length};
    for (int before = 0; before < axis; ++before) layout.outer *= (*this)[before];
    for (int after = axis + 1; after < rank(); ++after) layout.run *= (*this)[after];
    return layout;
}

GroupLayout layout_of(const Shape& shape, corepress_groups groups) {
    if (groups.size == 0) return {1, 1, shape.size()};
    shape.require_axis(groups.axis);
    require(groups.size > 0 && shape[groups.axis] % groups.size == 0, "groups of ", groups.size, " do not divide axis ",
            groups.axis, " of length ", shape[groups.axis]);
    return shape.along(groups.axis, groups.size);
}

BlockLayout layout_of(const Shape& shape, const int64_t* block_size) {
    std::vector<Split> splits;
    for (int axis = 0; axis < shape.rank(); ++axis) {
        const int64_t length = shape[axis],
                      size = block_size == nullptr || block_size[axis] == 0 ? length : block_size[axis];
        require(size > 0 && length % size == 0, "blocks of ", size, " do not divide axis ", axis, " of length ",
                length);
        splits.push_back({length / size, size});
    }
    return BlockLayout(splits);
}

}  // namespace corepress::c_api

const char* corepress_version(void) { return COREPRESS_VERSION; }

const char* corepress_last_error(void) { return corepress::c_api::last_error; }

void corepress_set_cancel(corepress_cancel cancel, void* context) {
    corepress::c_api::cancel_of_host = cancel;
    corepress::c_api::context_of_host = context;
}

const char* corepress_simd_level(void) { return corepress::kernels().level; }

int64_t corepress_packed_size(int64_t count, int nbits) { return corepress::packed_size(count, nbits); }
