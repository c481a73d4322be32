#include "algo/affine/quantize.h"

#include "c_api/checks.h"

namespace {

using namespace corepress;
using namespace corepress::c_api;

CodeType type_of(corepress_integer dtype) {
    require(dtype >= COREPRESS_INT8 && dtype <= COREPRESS_UINT4, "dtype ", static_cast<int>(dtype), " is unknown");
    return {dtype <= COREPRESS_UINT8 ? 8 : 4, dtype == COREPRESS_INT8 || dtype == COREPRESS_INT4};
}

}  // namespace

int64_t corepress_block_count(const corepress_shape* shape, const int64_t* block_size) {
    int64_t count = -1;
    guarded("corepress_block_count", [&] { count = layout_of(Shape(shape), block_size).groups(); });
    return count;
}

corepress_status corepress_quantize(const void* weights, const corepress_shape* given, corepress_integer dtype,
                                    corepress_quantize_mode mode, const int64_t* block_size, int search_scale,
                                    const float* importance, int num_threads, void* scale, uint8_t* zero_point,
                                    uint8_t* data) {
    return guarded("corepress_quantize", [&] {
        const Shape shape(given);
        shape.require_not_empty();
        require(mode == COREPRESS_LINEAR_SYMMETRIC || mode == COREPRESS_LINEAR, "mode ", static_cast<int>(mode),
                " is unknown");
        require(importance == nullptr || search_scale != 0, "importance needs search_scale");
        require_given(weights, "weights");
        require_given(scale, "scale");
        require_given(zero_point, "zero_point");
        require_given(data, "data");
        require_importance(importance, shape.size());
        const AffineEncoding encoding{type_of(dtype), mode == COREPRESS_LINEAR_SYMMETRIC, search_scale != 0};
        const BlockLayout layout = layout_of(shape, block_size);
        const int threads = resolve_threads(num_threads);
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            if (!quantize(static_cast<const Bits*>(weights), importance, layout, encoding, threads,
                          static_cast<Bits*>(scale), zero_point, data)) {
                throw NonFinite();
            }
        });
    });
}

corepress_status corepress_dequantize(const uint8_t* data, const void* scale, const uint8_t* zero_point,
                                      const corepress_shape* given, corepress_integer dtype, const int64_t* block_size,
                                      int num_threads, void* weights) {
    return guarded("corepress_dequantize", [&] {
        const Shape shape(given);
        shape.require_not_empty();
        require_given(data, "data");
        require_given(scale, "scale");
        require_given(weights, "weights");
        const CodeType type = type_of(dtype);
        const BlockLayout layout = layout_of(shape, block_size);
        const int threads = resolve_threads(num_threads);
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            dequantize(data, layout, type, static_cast<const Bits*>(scale), zero_point, threads,
                       static_cast<Bits*>(weights));
        });
    });
}
