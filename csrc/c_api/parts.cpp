#include <cmath>

#include "algo/common/measure.h"
#include "algo/common/pack_bits.h"
#include "algo/palettize/kmeans1d_rows.h"
#include "c_api/checks.h"
#include "core/in_parts.h"

namespace {

using namespace corepress;
using namespace corepress::c_api;

BitOrder stream_of(int nbits, int is_signed, corepress_bit_order order) {
    require(nbits >= 1 && nbits <= 8, "nbits must be 1 to 8, not ", nbits);
    require(order == COREPRESS_LSB_FIRST || order == COREPRESS_MSB_FIRST, "order ", static_cast<int>(order),
            " is unknown");
    return {nbits, is_signed != 0, order == COREPRESS_MSB_FIRST};
}

}  // namespace

corepress_status corepress_pack_bits(const uint8_t* codes, int64_t count, int nbits, int is_signed,
                                     corepress_bit_order order, int num_threads, uint8_t* packed) {
    return guarded("corepress_pack_bits", [&] {
        const BitOrder stream = stream_of(nbits, is_signed, order);
        require(count >= 0, "count must not be negative, not ", count);
        const int threads = resolve_threads(num_threads);
        if (count == 0) return;
        require_given(codes, "codes");
        require_given(packed, "packed");
        require(pack_bits(codes, count, stream, threads, packed), "a code does not fit ", nbits, " bits");
    });
}

corepress_status corepress_unpack_bits(const uint8_t* packed, int64_t count, int nbits, int is_signed,
                                       corepress_bit_order order, int num_threads, uint8_t* codes) {
    return guarded("corepress_unpack_bits", [&] {
        const BitOrder stream = stream_of(nbits, is_signed, order);
        require(count >= 0, "count must not be negative, not ", count);
        const int threads = resolve_threads(num_threads);
        if (count == 0) return;
        require_given(packed, "packed");
        require_given(codes, "codes");
        unpack_bits(packed, count, stream, threads, codes);
    });
}

corepress_status corepress_kmeans1d(const double* values, const double* weights, int64_t count, int k, int32_t* codes,
                                    double* centroids, double* inertia) {
    return guarded("corepress_kmeans1d", [&] {
        require(count >= 1, "count must be at least 1, not ", count);
        require(k >= 1, "k must be at least 1, not ", k);
        require_given(values, "values");
        require_given(codes, "codes");
        require_given(centroids, "centroids");
        require_given(inertia, "inertia");
        double total = 0;
        for_each_part(count, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                if (!std::isfinite(values[i])) throw NonFinite();
                if (weights == nullptr) continue;
                require(weights[i] >= 0 && std::isfinite(weights[i]), "weights must be finite and not negative, not ",
                        weights[i]);
                total += weights[i];
            }
        });
        require(weights == nullptr || total > 0, "all weights are 0");
        const RowClusters result{codes, centroids, inertia};
        kmeans1d_rows(values, weights, 1, count, {&k, 1}, 1, {&result, 1});
    });
}

corepress_status corepress_compare(const void* first, const void* second, const corepress_shape* given, int num_threads,
                                   corepress_errors* errors) {
    return guarded("corepress_compare", [&] {
        const Shape shape(given);
        require_given(errors, "errors");
        const int threads = resolve_threads(num_threads);
        *errors = {};
        if (shape.size() == 0) return;
        require_given(first, "first");
        require_given(second, "second");
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            const ErrorSums sums =
                sum_errors(static_cast<const Bits*>(first), static_cast<const Bits*>(second), shape.size(), threads);
            *errors = {sums.squared_error, sums.squared_first, sums.squared_second, sums.product, sums.largest_error};
        });
    });
}
