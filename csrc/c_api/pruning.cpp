#include <algorithm>
#include <cmath>
#include <type_traits>

#include "algo/prune/prune.h"
#include "algo/prune/structure.h"
#include "c_api/checks.h"
#include "dispatch.h"

namespace {

using namespace corepress;
using namespace corepress::c_api;

// The largest magnitude of the format that is not above a threshold: comparing with it is comparing with that.
template <typename Bits>
Bits magnitude_below(double threshold) {
    require(threshold >= 0, "threshold must not be negative or NaN, but is ", threshold);
    Bits bits = bits_from_double<Bits>(threshold);
    if (static_cast<double>(Format<Bits>::to_float(bits)) > threshold) --bits;
    return bits;
}

// Whether a sparsity is that of a rank among the magnitudes; 0 and 1 are not.
bool is_rank(double sparsity) {
    require(sparsity >= 0 && sparsity <= 1, "sparsity must be from 0 to 1, not ", sparsity);
    return sparsity > 0 && sparsity < 1;
}

int64_t rank_of(double sparsity, int64_t size) {
    return static_cast<int64_t>(std::floor(static_cast<double>(size - 1) * sparsity));
}

// Of sparsity 0 and 1: the magnitude up to which values go.
template <typename Bits>
Bits magnitude_at_end(double sparsity) {
    return sparsity == 1 ? Format<Bits>::kInfinity : Bits{0};
}

// What pruning functions have in common: prune(from, shape, threads, to) fills the mask and the values that stay.
template <typename Prune>
corepress_status prune_with(const char* function, const void* weights, const corepress_shape* given, int num_threads,
                            const uint8_t* mask, void* values, int64_t* kept, const Prune& prune) {
    return guarded(function, [&] {
        const Shape shape(given);
        require_given(kept, "kept");
        *kept = 0;
        const int threads = resolve_threads(num_threads);
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

corepress_status corepress_prune_to_sparsity(const void* weights, const corepress_shape* shape, double sparsity,
                                             int num_threads, uint8_t* mask, void* values, int64_t* kept) {
    const auto prune = [&](const auto* from, const Shape& checked, int threads, auto* to) {
        using Bits = std::decay_t<decltype(*from)>;
        const int64_t size = checked.size();
        const Bits threshold = is_rank(sparsity) ? magnitude_of_rank(from, size, rank_of(sparsity, size), threads).bits
                                                 : magnitude_at_end<Bits>(sparsity);
        return prune_by_magnitude(from, size, threshold, threads, mask, Span(to, size));
    };
    return prune_with("corepress_prune_to_sparsity", weights, shape, num_threads, mask, values, kept, prune);
}

corepress_status corepress_prune_below(const void* weights, const corepress_shape* shape, double threshold,
                                       int num_threads, uint8_t* mask, void* values, int64_t* kept) {
    const auto prune = [&](const auto* from, const Shape& checked, int threads, auto* to) {
        using Bits = std::decay_t<decltype(*from)>;
        const int64_t size = checked.size();
        return prune_by_magnitude(from, size, magnitude_below<Bits>(threshold), threads, mask, Span(to, size));
    };
    return prune_with("corepress_prune_below", weights, shape, num_threads, mask, values, kept, prune);
}

corepress_status corepress_prune_n_m(const void* weights, const corepress_shape* shape, int axis, int64_t n, int64_t m,
                                     int num_threads, uint8_t* mask, void* values, int64_t* kept) {
    const auto prune = [&](const auto* from, const Shape& checked, int threads, auto* to) {
        require(m >= 1 && m <= kLargestGroup && n >= 0 && n <= m,
                "n:m must have 0 <= n <= m and 1 <= m <= ", kLargestGroup, ", not ", n, ":", m);
        return prune_n_m(from, checked.along(axis, 1), n, m, threads, mask, Span(to, checked.size()));
    };
    return prune_with("corepress_prune_n_m", weights, shape, num_threads, mask, values, kept, prune);
}

corepress_status corepress_prune_blocks(const void* weights, const corepress_shape* shape, int axis, int64_t block_size,
                                        double sparsity, int num_threads, uint8_t* mask, void* values, int64_t* kept) {
    const auto prune = [&](const auto* from, const Shape& checked, int threads, auto* to) {
        using Bits = std::decay_t<decltype(*from)>;
        require(block_size >= 1, "block_size must be at least 1, not ", block_size);
        const GroupLayout along = checked.along(axis, 1);
        const int64_t size = checked.size();
        if (!is_rank(sparsity)) {
            return prune_by_magnitude(from, size, magnitude_at_end<Bits>(sparsity), threads, mask, Span(to, size));
        }
        return prune_blocks(from, along, std::min(block_size, along.groups), rank_of(sparsity, size), threads, mask,
                            Span(to, size));
    };
    return prune_with("corepress_prune_blocks", weights, shape, num_threads, mask, values, kept, prune);
}

corepress_status corepress_encode_sparse(const void* weights, const corepress_shape* given, const uint8_t* mask,
                                         int num_threads, void* values) {
    return guarded("corepress_encode_sparse", [&] {
        const Shape shape(given);
        const int threads = resolve_threads(num_threads);
        if (shape.size() == 0) return;
        require_given(weights, "weights");
        require_given(mask, "mask");
        const int64_t ones = kernels().count_bits(mask, shape.size());
        if (ones == 0) return;
        require_given(values, "values");
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            encode_sparse(static_cast<const Bits*>(weights), shape.size(), mask, threads,
                          Span<Bits>(static_cast<Bits*>(values), ones));
        });
    });
}

corepress_status corepress_decode_sparse(const void* values, const uint8_t* mask, const corepress_shape* given,
                                         int num_threads, void* weights) {
    return guarded("corepress_decode_sparse", [&] {
        const Shape shape(given);
        const int threads = resolve_threads(num_threads);
        if (shape.size() == 0) return;
        require_given(mask, "mask");
        require_given(weights, "weights");
        const int64_t ones = kernels().count_bits(mask, shape.size());
        if (ones > 0) require_given(values, "values");
        with_bits(shape.format(), [&](auto bits) {
            using Bits = decltype(bits);
            decode_sparse(Span<const Bits>(static_cast<const Bits*>(values), ones), mask, shape.size(), threads,
                          static_cast<Bits*>(weights));
        });
    });
}
