#include "algo/affine/quantize.h"

#include "c_api/checks.h"

namespace {

using namespace corepress;
using namespace corepress::c_api;

CodeType type_from(corepress_code dtype) {
    switch (dtype) {
        case COREPRESS_INT8: return {8, true};
        case COREPRESS_UINT8: return {8, false};
        case COREPRESS_INT4: return {4, true};
        case COREPRESS_UINT4: return {4, false};
        case COREPRESS_INT2: return {2, true};
        case COREPRESS_UINT2: return {2, false};
        case COREPRESS_FLOAT8_E4M3FN: return type_of(kFloat8E4M3FN);
        case COREPRESS_FLOAT8_E5M2: return type_of(kFloat8E5M2);
        case COREPRESS_FLOAT4_E2M1FN: return type_of(kFloat4E2M1FN);
    }
    require(false, "dtype ", static_cast<int>(dtype), " is unknown");
    return {};
}

void quantize_any(const void* weights, const Shape& shape, AffineEncoding encoding, const int64_t* block_size,
                  const float* importance, int num_threads, void* scale, uint8_t* exponent, uint8_t* zero_point,
                  uint8_t* data) {
    shape.require_not_empty();
    require(importance == nullptr || encoding.search_scale, "importance needs search_scale");
    require_given(weights, "weights");
    require_given(encoding.binary_scales ? exponent : scale, encoding.binary_scales ? "exponent" : "scale");
    require_given(zero_point, "zero_point");
    require_given(data, "data");
    require_importance(importance, shape.size());
    const BlockLayout layout = layout_of(shape, block_size);
    const int threads = resolve_threads(num_threads);
    with_bits(shape.format(), [&](auto bits) {
        using Bits = decltype(bits);
        if (!quantize(static_cast<const Bits*>(weights), importance, layout, encoding, threads,
                      static_cast<Bits*>(scale), zero_point, data, nullptr, exponent)) {
            throw NonFinite();
        }
    });
}

void dequantize_any(const uint8_t* data, const void* scale, const uint8_t* exponent, const uint8_t* zero_point,
                    const Shape& shape, CodeType type, const int64_t* block_size, int num_threads, void* weights) {
    shape.require_not_empty();
    require_given(data, "data");
    require_given(weights, "weights");
    const BlockLayout layout = layout_of(shape, block_size);
    const int threads = resolve_threads(num_threads);
    with_bits(shape.format(), [&](auto bits) {
        using Bits = decltype(bits);
        dequantize(data, layout, type, static_cast<const Bits*>(scale), zero_point, threads,
                   static_cast<Bits*>(weights), exponent);
    });
}

}  // namespace

int64_t corepress_block_count(const corepress_shape* shape, const int64_t* block_size) {
    int64_t count = -1;
    guarded("corepress_block_count", [&] { count = layout_of(Shape(shape), block_size).groups(); });
    return count;
}

corepress_status corepress_quantize(const void* weights, const corepress_shape* given, corepress_code dtype,
                                    corepress_quantize_mode mode, const int64_t* block_size, int search_scale,
                                    const float* importance, int num_threads, void* scale, uint8_t* zero_point,
                                    uint8_t* data) {
    return guarded("corepress_quantize", [&] {
        require(mode == COREPRESS_LINEAR_SYMMETRIC || mode == COREPRESS_LINEAR, "mode ", static_cast<int>(mode),
                " is unknown");
        const AffineEncoding encoding{type_from(dtype), mode == COREPRESS_LINEAR_SYMMETRIC, search_scale != 0};
        require(encoding.symmetric || encoding.type.floats == nullptr,
                "codes that are floats have no zero points; use COREPRESS_LINEAR_SYMMETRIC");
        quantize_any(weights, Shape(given), encoding, block_size, importance, num_threads, scale, nullptr, zero_point,
                     data);
    });
}

corepress_status corepress_dequantize(const uint8_t* data, const void* scale, const uint8_t* zero_point,
                                      const corepress_shape* given, corepress_code dtype, const int64_t* block_size,
                                      int num_threads, void* weights) {
    return guarded("corepress_dequantize", [&] {
        require_given(scale, "scale");
        dequantize_any(data, scale, nullptr, zero_point, Shape(given), type_from(dtype), block_size, num_threads,
                       weights);
    });
}

corepress_status corepress_quantize_e8m0(const void* weights, const corepress_shape* given, corepress_code dtype,
                                         const int64_t* block_size, int search_scale, const float* importance,
                                         int num_threads, uint8_t* exponent, uint8_t* zero_point, uint8_t* data) {
    return guarded("corepress_quantize_e8m0", [&] {
        const AffineEncoding encoding{type_from(dtype), true, search_scale != 0, true};
        quantize_any(weights, Shape(given), encoding, block_size, importance, num_threads, nullptr, exponent,
                     zero_point, data);
    });
}

corepress_status corepress_dequantize_e8m0(const uint8_t* data, const uint8_t* exponent, const uint8_t* zero_point,
                                           const corepress_shape* given, corepress_code dtype,
                                           const int64_t* block_size, int num_threads, void* weights) {
    return guarded("corepress_dequantize_e8m0", [&] {
        require_given(exponent, "exponent");
        dequantize_any(data, nullptr, exponent, zero_point, Shape(given), type_from(dtype), block_size, num_threads,
                       weights);
    });
}
