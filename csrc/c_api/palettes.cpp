#include <algorithm>
#include <cmath>
#include <vector>

#include "algo/common/measure.h"
#include "algo/palettize/fit_tables.h"
#include "algo/palettize/palettize.h"
#include "algo/prune/nested.h"
#include "algo/vectors/vector_palettes.h"
#include "c_api/checks.h"

namespace {

using namespace corepress;
using namespace corepress::c_api;

template <typename Bits>
void require_finite(const Bits* values, const Shape& shape, int threads) {
    if (count_nonfinite(values, shape.size(), threads) > 0) throw NonFinite();
}

// Each group's distinct values, and the last one again until the table is full.
template <typename Bits>
void put_distinct(const Bits* values, const GroupLayout& layout, int entries, int threads, Bits* luts) {
    const std::vector<std::vector<Bits>> distinct = distinct_values(values, layout, entries, threads);
    for (size_t group = 0; group < distinct.size(); ++group) {
        require(!distinct[group].empty(), "group ", group, " has more than ", entries, " distinct values");
        Bits* const lut = luts + group * static_cast<size_t>(entries);
        std::fill(std::copy(distinct[group].begin(), distinct[group].end(), lut), lut + entries,
                  distinct[group].back());
    }
}

template <typename Bits>
void require_ascending(const Bits* luts, int64_t tables, int entries) {
    for (int64_t i = 0; i < tables * entries; ++i) {
        require((luts[i] & Format<Bits>::kMagnitude) < Format<Bits>::kInfinity, "lut must be finite");
        require(i % entries == 0 || Format<Bits>::to_float(luts[i - 1]) <= Format<Bits>::to_float(luts[i]),
                "lut must ascend within each table");
    }
}

// The vectors of a tensor, and their groups.
VectorLayout vectors_of(const Shape& shape, int64_t cluster_dim, corepress_groups groups) {
    shape.require_axis(groups.axis);
    const int64_t length = shape[groups.axis], size = groups.size == 0 ? length : groups.size;
    require(cluster_dim >= 1, "cluster_dim must be at least 1, not ", cluster_dim);
    GroupLayout layout = layout_of(shape, corepress_groups{groups.axis, size});
    require(size % cluster_dim == 0, "cluster_dim ", cluster_dim, " does not divide ",
            groups.size == 0 ? "the axis" : "groups", " of ", size);
    layout.run /= cluster_dim;
    return {layout, shape.along(groups.axis, length).run / length, cluster_dim};
}

// Importance near 1, so that products keep their digits: with a factor to multiply it by, or multiplied.
struct ScaledImportance {
    const uint32_t* values = nullptr;
    float factor = 1;
    std::vector<float> multiplied;

    ScaledImportance(const float* importance, int64_t size) {
        const float largest = importance == nullptr ? 0 : *std::max_element(importance, importance + size);
        if (largest == 0) return;
        int exponent = 0;
        std::frexp(largest, &exponent);
        if (std::abs(exponent) < 126) {
            factor = std::ldexp(1.0f, -exponent);
        } else {
            multiplied.resize(static_cast<size_t>(size));
            std::transform(importance, importance + size, multiplied.begin(),
                           [exponent](float each) { return std::ldexp(each, -exponent); });
            importance = multiplied.data();
        }
        values = reinterpret_cast<const uint32_t*>(importance);
    }
};

}  // namespace

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
        require_palette_width(nbits);
        require(mode >= COREPRESS_KMEANS && mode <= COREPRESS_UNIQUE, "mode ", static_cast<int>(mode), " is unknown");
        const bool is_kmeans = mode == COREPRESS_KMEANS;
        require(importance == nullptr || is_kmeans, "importance is for COREPRESS_KMEANS");
        require_given(weights, "weights");
        require_given(lut, "lut");
        require_given(indices, "indices");
        require_importance(importance, shape.size());
        const GroupLayout layout = layout_of(shape, groups);
        const int threads = resolve_threads(num_threads);
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            const Bits* const values = static_cast<const Bits*>(weights);
            Bits* const luts = static_cast<Bits*>(lut);
            if (!is_kmeans || importance != nullptr) require_finite(values, shape, threads);
            if (mode == COREPRESS_UNIQUE) {
                put_distinct(values, layout, 1 << nbits, threads, luts);
            } else {
                const TableRule rule{is_kmeans ? TableMode::kKmeans : TableMode::kUniform, 1 << nbits};
                if (!fit_tables(values, importance, layout, rule, threads, luts).finite) throw NonFinite();
            }
            palettize(values, layout, nbits, luts, threads, indices);
        });
    });
}

corepress_status corepress_assign(const void* weights, const corepress_shape* given, int nbits, const void* lut,
                                  corepress_groups groups, int num_threads, uint8_t* indices) {
    return guarded("corepress_assign", [&] {
        const Shape shape(given);
        shape.require_not_empty();
        require_palette_width(nbits);
        require_given(weights, "weights");
        require_given(lut, "lut");
        require_given(indices, "indices");
        const GroupLayout layout = layout_of(shape, groups);
        const int threads = resolve_threads(num_threads);
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            const Bits* const values = static_cast<const Bits*>(weights);
            const Bits* const luts = static_cast<const Bits*>(lut);
            require_ascending(luts, layout.groups, 1 << nbits);
            require_finite(values, shape, threads);
            palettize(values, layout, nbits, luts, threads, indices);
        });
    });
}

corepress_status corepress_depalettize(const uint8_t* indices, const void* lut, const corepress_shape* given, int nbits,
                                       corepress_groups groups, int num_threads, void* weights) {
    return guarded("corepress_depalettize", [&] {
        const Shape shape(given);
        shape.require_not_empty();
        require_palette_width(nbits);
        require_given(indices, "indices");
        require_given(lut, "lut");
        require_given(weights, "weights");
        const GroupLayout layout = layout_of(shape, groups);
        const BlockLayout blocks({{1, layout.outer}, {layout.groups, layout.run}});
        const int threads = resolve_threads(num_threads);
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            look_up(indices, blocks, nbits, static_cast<const Bits*>(lut), nullptr, threads,
                    Span<Bits>(static_cast<Bits*>(weights), shape.size()));
        });
    });
}

corepress_status corepress_palettize_vectors(const void* weights, const corepress_shape* given, int nbits,
                                             int64_t cluster_dim, corepress_groups groups, const float* importance,
                                             int num_threads, void* lut, uint8_t* indices) {
    return guarded("corepress_palettize_vectors", [&] {
        const Shape shape(given);
        shape.require_not_empty();
        require_palette_width(nbits);
        require_given(weights, "weights");
        require_given(lut, "lut");
        require_given(indices, "indices");
        require_importance(importance, shape.size());
        const VectorLayout layout = vectors_of(shape, cluster_dim, groups);
        const ScaledImportance scaled(importance, shape.size());
        const int threads = resolve_threads(num_threads);
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            const VectorSource<Bits> source{static_cast<const Bits*>(weights), layout, scaled.values, scaled.factor,
                                            nullptr};
            Bits* const luts = static_cast<Bits*>(lut);
            require_finite(source.values, shape, threads);
            fit_vector_tables(source, 1 << nbits, threads, luts);
            palettize_vectors(source, nbits, luts, threads, indices);
        });
    });
}

corepress_status corepress_depalettize_vectors(const uint8_t* indices, const void* lut, const corepress_shape* given,
                                               int nbits, int64_t cluster_dim, corepress_groups groups, int num_threads,
                                               void* weights) {
    return guarded("corepress_depalettize_vectors", [&] {
        const Shape shape(given);
        shape.require_not_empty();
        require_palette_width(nbits);
        require_given(indices, "indices");
        require_given(lut, "lut");
        require_given(weights, "weights");
        const VectorLayout layout = vectors_of(shape, cluster_dim, groups);
        const BlockLayout blocks({{1, layout.groups.outer}, {layout.groups.groups, layout.groups.run}});
        const int threads = resolve_threads(num_threads);
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            depalettize_vectors(indices, {blocks, layout.inner, layout.length}, nbits, static_cast<const Bits*>(lut),
                                threads, static_cast<Bits*>(weights));
        });
    });
}

corepress_status corepress_normalize(const void* weights, const corepress_shape* given, int axis, int num_threads,
                                     void* scale, void* quotients) {
    return guarded("corepress_normalize", [&] {
        const Shape shape(given);
        shape.require_not_empty();
        require_given(weights, "weights");
        require_given(scale, "scale");
        require_given(quotients, "quotients");
        const GroupLayout layout = shape.along(axis, 1);
        const int threads = resolve_threads(num_threads);
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            const Bits* const values = static_cast<const Bits*>(weights);
            require_finite(values, shape, threads);
            normalize(values, layout, threads, static_cast<Bits*>(scale), static_cast<Bits*>(quotients));
        });
    });
}

corepress_status corepress_denormalize(const void* quotients, const corepress_shape* given, int axis, const void* scale,
                                       int num_threads, void* weights) {
    return guarded("corepress_denormalize", [&] {
        const Shape shape(given);
        shape.require_not_empty();
        require_given(quotients, "quotients");
        require_given(scale, "scale");
        require_given(weights, "weights");
        const GroupLayout layout = shape.along(axis, 1);
        const int threads = resolve_threads(num_threads);
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            denormalize(static_cast<const Bits*>(quotients), layout, static_cast<const Bits*>(scale), threads,
                        static_cast<Bits*>(weights));
        });
    });
}
