#include "c_api/corepress.h"

#include <cmath>
#include <exception>
#include <limits>
#include <new>
#include <string>
#include <vector>

#include "algo/fit_tables.h"
#include "algo/kmeans1d_rows.h"
#include "algo/measure.h"
#include "algo/nested.h"
#include "algo/pack_bits.h"
#include "algo/palettize.h"
#include "algo/prune.h"
#include "algo/quantize.h"
#include "algo/structure.h"
#include "core/blocks.h"
#include "core/formats.h"
#include "core/parallel.h"
#include "core/require.h"
#include "core/span.h"
#include "dispatch.h"

namespace {

using namespace corepress;

constexpr int kMostAxes = 32;

thread_local std::string last_error;

struct NonFinite : std::exception {};

// Turns exceptions into a status; nothing may leave the library otherwise.
template <typename Body>
corepress_status guarded(const char* function, const Body& body) {
    const auto fail = [&](corepress_status status, const char* rule) {
        try {
            last_error = std::string(function) + ": " + rule;
        } catch (...) {
            last_error.clear();
        }
        return status;
    };
    try {
        body();
        return COREPRESS_OK;
    } catch (const NonFinite&) {
        return fail(COREPRESS_NON_FINITE, "weights are NaN or infinite");
    } catch (const std::invalid_argument& error) {
        return fail(COREPRESS_INVALID_ARGUMENT, error.what());
    } catch (const std::bad_alloc&) {
        return fail(COREPRESS_OUT_OF_MEMORY, "out of memory");
    } catch (const std::exception& error) {
        return fail(COREPRESS_FAILED, error.what());
    }
}

void require_given(const void* pointer, const char* name) { require(pointer != nullptr, name, " must not be NULL"); }

int threads_from(int num_threads) { return resolve_threads(num_threads); }

// A shape that has been checked.
class Shape {
public:
    explicit Shape(const corepress_shape* shape) {
        require_given(shape, "shape");
        require(shape->dtype >= COREPRESS_FLOAT16 && shape->dtype <= COREPRESS_FLOAT32, "dtype ",
                static_cast<int>(shape->dtype), " is unknown");
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

    int64_t size() const { return size_; }
    int rank() const { return static_cast<int>(axes_.size()); }
    int64_t operator[](int axis) const { return axes_[static_cast<size_t>(axis)]; }
    FloatFormat format() const { return format_; }

    void require_axis(int axis) const {
        require(axis >= 0 && axis < rank(), "axis must be from 0 to ", rank() - 1, ", not ", axis);
    }
    void require_not_empty() const { require(size_ > 0, "the tensor has no elements"); }

    // Seen along an axis, `length` entries of which belong together.
    GroupLayout along(int axis, int64_t length) const {
        require_axis(axis);
        GroupLayout layout{1, (*this)[axis] / length, length};
        for (int before = 0; before < axis; ++before) layout.outer *= (*this)[before];
        for (int after = axis + 1; after < rank(); ++after) layout.run *= (*this)[after];
        return layout;
    }

private:
    FloatFormat format_ = FloatFormat::kHalf;
    std::vector<int64_t> axes_;
    int64_t size_ = 1;
};

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

IntegerType type_of(corepress_integer dtype) {
    require(dtype >= COREPRESS_INT8 && dtype <= COREPRESS_UINT4, "dtype ", static_cast<int>(dtype), " is unknown");
    return {dtype <= COREPRESS_UINT8 ? 8 : 4, dtype == COREPRESS_INT8 || dtype == COREPRESS_INT4};
}

template <typename Bits>
void require_finite(const Bits* values, const Shape& shape, int threads) {
    if (count_nonfinite(values, shape.size(), threads) > 0) throw NonFinite();
}

void require_importance(const float* importance, int64_t size) {
    for (int64_t i = 0; importance != nullptr && i < size; ++i) {
        require(importance[i] >= 0 && importance[i] <= std::numeric_limits<float>::max(),
                "importance must be finite and not negative, not ", importance[i]);
    }
}

// The largest magnitude of the format that is not above a threshold: comparing with it is comparing with that.
template <typename Bits>
Bits magnitude_below(double threshold) {
    require(threshold >= 0, "threshold must not be negative or NaN, but is ", threshold);
    Bits bits = bits_from_double<Bits>(threshold);
    if (static_cast<double>(Format<Bits>::to_float(bits)) > threshold) --bits;
    return bits;
}

// What pruning functions have in common: prune(from, shape, threads, to) fills the mask and the values that stay.
template <typename Prune>
corepress_status prune_with(const char* function, const void* weights, const corepress_shape* given, int num_threads,
                            const uint8_t* mask, void* values, int64_t* kept, const Prune& prune) {
    return guarded(function, [&] {
        const Shape shape(given);
        require_given(kept, "kept");
        *kept = 0;
        const int threads = threads_from(num_threads);
        if (shape.size() == 0) return;
        require_given(weights, "weights");
        require_given(mask, "mask");
        require_given(values, "values");
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            const Pruned pruned = prune(static_cast<const Bits*>(weights), shape, threads, static_cast<Bits*>(values));
            if (!pruned.is_finite) throw NonFinite();
            *kept = pruned.ones;
        });
    });
}

}  // namespace

const char* corepress_version(void) { return COREPRESS_VERSION; }

const char* corepress_last_error(void) { return last_error.c_str(); }

const char* corepress_simd_level(void) { return kernels().level; }

int64_t corepress_packed_size(int64_t count, int nbits) { return packed_size(count, nbits); }

int64_t corepress_table_count(const corepress_shape* shape, corepress_groups groups) {
    int64_t count = -1;
    guarded("corepress_table_count", [&] { count = layout_of(Shape(shape), groups).groups; });
    return count;
}

corepress_status corepress_palettize(const void* weights, const corepress_shape* given, int nbits,
                                     corepress_palette_mode mode, corepress_groups groups, const float* importance,
                                     int num_threads, void* lut, uint8_t* indices) {
    return guarded("corepress_palettize", [&] {
        const Shape shape(given);
        shape.require_not_empty();
        require(is_palette_width(nbits), "nbits must be 1, 2, 3, 4, 6 or 8, not ", nbits);
        require(mode == COREPRESS_KMEANS || mode == COREPRESS_UNIFORM, "mode ", static_cast<int>(mode), " is unknown");
        require_given(weights, "weights");
        require_given(lut, "lut");
        require_given(indices, "indices");
        require_importance(importance, shape.size());
        const GroupLayout layout = layout_of(shape, groups);
        const int threads = threads_from(num_threads);
        const bool is_kmeans = mode == COREPRESS_KMEANS;
        const TableRule rule{is_kmeans ? TableMode::kKmeans : TableMode::kUniform, 1 << nbits};
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            const Bits* const values = static_cast<const Bits*>(weights);
            Bits* const luts = static_cast<Bits*>(lut);
            if (!is_kmeans || importance != nullptr) require_finite(values, shape, threads);
            if (!fit_tables(values, is_kmeans ? importance : nullptr, layout, rule, threads, luts).finite) {
                throw NonFinite();
            }
            palettize(values, layout, nbits, luts, threads, indices);
        });
    });
}

corepress_status corepress_depalettize(const uint8_t* indices, const void* lut, const corepress_shape* given, int nbits,
                                       corepress_groups groups, int num_threads, void* weights) {
    return guarded("corepress_depalettize", [&] {
        const Shape shape(given);
        shape.require_not_empty();
        require(is_palette_width(nbits), "nbits must be 1, 2, 3, 4, 6 or 8, not ", nbits);
        require_given(indices, "indices");
        require_given(lut, "lut");
        require_given(weights, "weights");
        const GroupLayout layout = layout_of(shape, groups);
        const BlockLayout blocks({{1, layout.outer}, {layout.groups, layout.run}});
        const int threads = threads_from(num_threads);
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            look_up(indices, blocks, nbits, static_cast<const Bits*>(lut), nullptr, threads,
                    static_cast<Bits*>(weights));
        });
    });
}

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
        const int threads = threads_from(num_threads);
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
        const IntegerType type = type_of(dtype);
        const BlockLayout layout = layout_of(shape, block_size);
        const int threads = threads_from(num_threads);
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            dequantize(data, layout, type, static_cast<const Bits*>(scale), zero_point, threads,
                       static_cast<Bits*>(weights));
        });
    });
}

corepress_status corepress_prune_to_sparsity(const void* weights, const corepress_shape* shape, double sparsity,
                                             int num_threads, uint8_t* mask, void* values, int64_t* kept) {
    const auto prune = [&](const auto* from, const Shape& checked, int threads, auto* to) {
        using Bits = std::decay_t<decltype(*from)>;
        require(sparsity >= 0 && sparsity <= 1, "sparsity must be from 0 to 1, not ", sparsity);
        const int64_t size = checked.size();
        Bits threshold = 0;
        if (sparsity == 1) {
            threshold = Format<Bits>::kInfinity;
        } else if (sparsity > 0) {
            const auto rank = static_cast<int64_t>(std::floor(static_cast<double>(size - 1) * sparsity));
            threshold = magnitude_of_rank(from, size, rank, threads).bits;
        }
        return prune_by_magnitude(from, size, threshold, threads, mask, to);
    };
    return prune_with("corepress_prune_to_sparsity", weights, shape, num_threads, mask, values, kept, prune);
}

corepress_status corepress_prune_below(const void* weights, const corepress_shape* shape, double threshold,
                                       int num_threads, uint8_t* mask, void* values, int64_t* kept) {
    const auto prune = [&](const auto* from, const Shape& checked, int threads, auto* to) {
        using Bits = std::decay_t<decltype(*from)>;
        return prune_by_magnitude(from, checked.size(), magnitude_below<Bits>(threshold), threads, mask, to);
    };
    return prune_with("corepress_prune_below", weights, shape, num_threads, mask, values, kept, prune);
}

corepress_status corepress_prune_n_m(const void* weights, const corepress_shape* shape, int axis, int64_t n, int64_t m,
                                     int num_threads, uint8_t* mask, void* values, int64_t* kept) {
    const auto prune = [&](const auto* from, const Shape& checked, int threads, auto* to) {
        require(m >= 1 && m <= kLargestGroup && n >= 0 && n <= m,
                "n:m must have 0 <= n <= m and 1 <= m <= ", kLargestGroup, ", not ", n, ":", m);
        return prune_n_m(from, checked.along(axis, 1), n, m, threads, mask, to);
    };
    return prune_with("corepress_prune_n_m", weights, shape, num_threads, mask, values, kept, prune);
}

corepress_status corepress_encode_sparse(const void* weights, const corepress_shape* given, const uint8_t* mask,
                                         int num_threads, void* values) {
    return guarded("corepress_encode_sparse", [&] {
        const Shape shape(given);
        const int threads = threads_from(num_threads);
        if (shape.size() == 0) return;
        require_given(weights, "weights");
        require_given(mask, "mask");
        if (kernels().count_bits(mask, shape.size()) == 0) return;
        require_given(values, "values");
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            encode_sparse(static_cast<const Bits*>(weights), shape.size(), mask, threads, static_cast<Bits*>(values));
        });
    });
}

corepress_status corepress_decode_sparse(const void* values, const uint8_t* mask, const corepress_shape* given,
                                         int num_threads, void* weights) {
    return guarded("corepress_decode_sparse", [&] {
        const Shape shape(given);
        const int threads = threads_from(num_threads);
        if (shape.size() == 0) return;
        require_given(mask, "mask");
        require_given(weights, "weights");
        if (kernels().count_bits(mask, shape.size()) > 0) require_given(values, "values");
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            decode_sparse(static_cast<const Bits*>(values), mask, shape.size(), threads, static_cast<Bits*>(weights));
        });
    });
}

corepress_status corepress_pack_bits(const uint8_t* codes, int64_t count, int nbits, int num_threads, uint8_t* packed) {
    return guarded("corepress_pack_bits", [&] {
        require(nbits >= 1 && nbits <= 8, "nbits must be 1 to 8, not ", nbits);
        require(count >= 0, "count must not be negative, not ", count);
        const int threads = threads_from(num_threads);
        if (count == 0) return;
        require_given(codes, "codes");
        require_given(packed, "packed");
        require(pack_bits(codes, count, {nbits, false, false}, threads, packed), "a code does not fit ", nbits,
                " bits");
    });
}

corepress_status corepress_unpack_bits(const uint8_t* packed, int64_t count, int nbits, int num_threads,
                                       uint8_t* codes) {
    return guarded("corepress_unpack_bits", [&] {
        require(nbits >= 1 && nbits <= 8, "nbits must be 1 to 8, not ", nbits);
        require(count >= 0, "count must not be negative, not ", count);
        const int threads = threads_from(num_threads);
        if (count == 0) return;
        require_given(packed, "packed");
        require_given(codes, "codes");
        unpack_bits(packed, count, {nbits, false, false}, threads, codes);
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
        for (int64_t i = 0; i < count; ++i) {
            if (!std::isfinite(values[i])) throw NonFinite();
            if (weights == nullptr) continue;
            require(weights[i] >= 0 && std::isfinite(weights[i]), "weights must be finite and not negative, not ",
                    weights[i]);
            total += weights[i];
        }
        require(weights == nullptr || total > 0, "all weights are 0");
        const RowClusters result{codes, centroids, inertia};
        kmeans1d_rows(values, weights, 1, count, {&k, 1}, 1, {&result, 1});
    });
}

corepress_status corepress_squared_error(const void* first, const void* second, const corepress_shape* given,
                                         int num_threads, double* squared_error, double* squared_first) {
    return guarded("corepress_squared_error", [&] {
        const Shape shape(given);
        require_given(squared_error, "squared_error");
        require_given(squared_first, "squared_first");
        const int threads = threads_from(num_threads);
        *squared_error = *squared_first = 0;
        if (shape.size() == 0) return;
        require_given(first, "first");
        require_given(second, "second");
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            const ErrorSums sums =
                sum_errors(static_cast<const Bits*>(first), static_cast<const Bits*>(second), shape.size(), threads);
            *squared_error = sums.squared_error;
            *squared_first = sums.squared_first;
        });
    });
}
