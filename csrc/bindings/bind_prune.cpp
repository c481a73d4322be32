#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "algo/prune/prune.h"
#include "algo/prune/structure.h"
#include "bindings/arrays.h"
#include "bindings/native_call.h"
#include "dispatch.h"
#include "kernels/table.h"

namespace corepress {
namespace {

// What goes of one tensor: magnitudes up to a threshold or up to that of a rank, n of every m along an axis, or the
// blocks of smallest norm along an axis.
struct PruneRule {
    enum class Kind { kThreshold, kRank, kGroups, kBlocks } kind;
    int64_t rank = 0;
    int64_t n = 0;
    int64_t length = 0;  // m, or the size of a block
    GroupLayout axis = {};
};

void require_rank(int64_t rank, const py::array& weight) {
    require(rank >= 0 && rank < weight.size(), "rank must be from 0 to ", weight.size() - 1, ", not ", rank);
}

void require_n_m(int64_t n, int64_t m) {
    require(m >= 1 && m <= kLargestGroup && n >= 0 && n <= m, "n:m must have 0 <= n <= m and 1 <= m <= ", kLargestGroup,
            ", not ", n, ":", m);
}

Bytes n_m_keep_array(const py::array& weight, const Layout& layout, int64_t n, int64_t m,
                     std::optional<int> num_threads) {
    require_float(weight, "weight");
    const GroupLayout axis = layout_from(layout, weight);
    require_n_m(n, m);
    const int threads = threads_from(num_threads);
    Bytes keep(weight.size());
    uint8_t* const out = keep.mutable_data();
    with_bits(weight, [&](auto bits) {
        const auto* const values = data_of<decltype(bits)>(weight);
        const NativeCall call;
        if (axis.size() != 0) n_m_keep(values, axis, n, m, threads, out);
    });
    return keep;
}

// One tensor of a list, with all that is needed while the interpreter runs other threads.
struct Job {
    FloatFormat format;
    PruneRule rule;
    py::array weight, threshold, kept;
    Bytes mask;
    int64_t size;
    const void* values;
    const void* limit;
    uint8_t* bits_of_mask;
    bool measured;
    uint32_t magnitude = 0;  // what goes, by a threshold or a rank
    int64_t room = 0;        // of `kept`
    void* out = nullptr;
    Pruned pruned = {};
    int64_t nonfinite = 0;
    std::optional<Noise> noise = {};
};

Job make_job(const py::array& weight, const py::tuple& given, bool measured) {
    const FloatFormat format = require_float(weight, "weight");
    const std::string name = given[0].cast<std::string>();
    PruneRule rule{PruneRule::Kind::kThreshold};
    py::array threshold;
    if (name == "threshold") {
        threshold = given[1].cast<py::array>();
        require_float(threshold, "threshold");
        require_same_dtype(weight, threshold, "weight and threshold");
        require_size(threshold, 1, "threshold");
    } else if (name == "rank") {
        rule = {PruneRule::Kind::kRank, given[1].cast<int64_t>()};
        require_rank(rule.rank, weight);
    } else if (name == "n_m") {
        rule = {PruneRule::Kind::kGroups, 0, given[2].cast<int64_t>(), given[3].cast<int64_t>()};
        rule.axis = layout_from(given[1].cast<Layout>(), weight);
        require_n_m(rule.n, rule.length);
    } else {
        require(name == "blocks", "rule must be threshold, rank, n_m or blocks, not ", name);
        rule = {PruneRule::Kind::kBlocks, given[3].cast<int64_t>(), 0, given[2].cast<int64_t>()};
        rule.axis = layout_from(given[1].cast<Layout>(), weight);
        require(rule.length >= 1, "block_size must be at least 1, not ", rule.length);
        require_rank(rule.rank, weight);
    }
    Job job{format,        rule,          weight,           threshold, {},      Bytes(packed_size(weight.size(), 1)),
            weight.size(), weight.data(), threshold.data(), nullptr,   measured};
    job.bits_of_mask = job.mask.mutable_data();
    return job;
}

// What the rule says of the values that can stay, or most likely can.
template <typename Bits>
void find_room(Job& job, int threads) {
    const Bits* const values = static_cast<const Bits*>(job.values);
    const PruneRule& rule = job.rule;
    switch (rule.kind) {
        case PruneRule::Kind::kThreshold: {
            const Bits threshold = *static_cast<const Bits*>(job.limit);
            job.magnitude = static_cast<uint32_t>(threshold);
            job.room = most_likely_above(values, job.size, threshold);
            break;
        }
        case PruneRule::Kind::kRank: {
            Noise* const noise = job.measured && sizeof(Bits) == 2 ? &job.noise.emplace() : nullptr;
            const Magnitude<Bits> found = magnitude_of_rank(values, job.size, rule.rank, threads, noise);
            job.magnitude = static_cast<uint32_t>(found.bits);
            job.room = found.above;
            break;
        }
        case PruneRule::Kind::kBlocks: job.room = job.size - 1 - rule.rank; break;
        case PruneRule::Kind::kGroups: {
            const int64_t tail = rule.axis.groups % rule.length;
            const int64_t of_tail = std::min(tail, rule.length - rule.n);
            const int64_t of_axis = rule.axis.groups / rule.length * (rule.length - rule.n) + of_tail;
            job.room = rule.axis.outer * of_axis * rule.axis.run;
        }
    }
}

void make_room(Job& job, int64_t room) {
    job.room = room;
    job.kept = empty_like_float(job.weight, room);
    job.out = job.kept.mutable_data();
}

template <typename Bits>
Pruned prune(const Job& job, int threads) {
    const Bits* const values = static_cast<const Bits*>(job.values);
    const Span<Bits> kept(static_cast<Bits*>(job.out), job.room);
    const PruneRule& rule = job.rule;
    if (job.size == 0) return {};
    if (rule.kind == PruneRule::Kind::kThreshold || rule.kind == PruneRule::Kind::kRank) {
        return prune_by_magnitude(values, job.size, static_cast<Bits>(job.magnitude), threads, job.bits_of_mask, kept);
    }
    if (rule.kind == PruneRule::Kind::kGroups) {
        return prune_n_m(values, rule.axis, rule.n, rule.length, threads, job.bits_of_mask, kept);
    }
    const int64_t block_size = std::min(rule.length, rule.axis.groups);
    return prune_blocks(values, rule.axis, block_size, rule.rank, threads, job.bits_of_mask, kept);
}

// Where more values stay than was likely, or than could while they did not change.
template <typename Bits>
void write_kept(const Job& job, int threads) {
    const NativeCall call;
    encode_sparse(static_cast<const Bits*>(job.values), job.size, job.bits_of_mask, threads,
                  Span<Bits>(static_cast<Bits*>(job.out), job.room));
}

// Prunes each weight by its rule: ("threshold", array of one), ("rank", rank), ("n_m", layout, n, m) or ("blocks",
// layout, block_size, rank). A (mask, values, noise, nonfinite) for each: noise None unless `measured` and it takes no
// other pass; nonfinite the number of values that are not, without which the others say nothing.
py::list prune_arrays(const std::vector<py::array>& weights, const std::vector<py::tuple>& rules, bool measured,
                      std::optional<int> num_threads) {
    require(rules.size() == weights.size(), "there must be one rule per weight");
    const int threads = threads_from(num_threads);
    std::vector<Job> jobs;
    std::vector<int64_t> sizes;
    for (size_t i = 0; i < weights.size(); ++i) {
        jobs.push_back(make_job(weights[i], rules[i], measured));
        sizes.push_back(weights[i].size());
    }
    const auto for_each_job = [&](const auto& body) {
        const NativeCall call;
        parallel_jobs(sizes, threads, [&](int64_t index, int job_threads) {
            Job& job = jobs[static_cast<size_t>(index)];
            with_bits(job.format, [&](auto bits) { body(job, bits, job_threads); });
        });
    };
    for_each_job([](Job& job, auto bits, int job_threads) { find_room<decltype(bits)>(job, job_threads); });
    for (Job& job : jobs) make_room(job, job.room);
    for_each_job([](Job& job, auto bits, int job_threads) {
        using Bits = decltype(bits);
        job.pruned = prune<Bits>(job, job_threads);
        if (job.pruned.is_finite) return;
        const auto& loops = kernels_for<Bits>(kernels());
        job.nonfinite = loops.count_nonfinite(static_cast<const Bits*>(job.values), job.size);
    });
    for (Job& job : jobs) {
        if (job.pruned.ones <= job.room || !job.pruned.is_finite) continue;
        make_room(job, job.pruned.ones);
        with_bits(job.format, [&](auto bits) { write_kept<decltype(bits)>(job, threads); });
    }
    py::list results;
    for (const Job& job : jobs) {
        if (job.kept.size() != job.pruned.ones) job.kept.attr("resize")(job.pruned.ones, py::arg("refcheck") = false);
        results.append(py::make_tuple(job.mask, job.kept, tuple_of(job.noise), job.nonfinite));
    }
    return results;
}

void encode_sparse_array(const py::array& weight, const Bytes& mask, py::array& kept, std::optional<int> num_threads) {
    require_float(weight, "weight");
    require_float(kept, "out");
    require_same_dtype(weight, kept, "weight and out");
    require_size(mask, packed_size(weight.size(), 1), "mask");
    const uint8_t* const bits_of_mask = mask.data();
    require_size(kept, kernels().count_bits(bits_of_mask, weight.size()), "out");
    const int threads = threads_from(num_threads);
    with_bits(weight, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        const Span<Bits> out(writable_data_of<Bits>(kept), kept.size());
        const NativeCall call;
        encode_sparse(values, weight.size(), bits_of_mask, threads, out);
    });
}

void decode_sparse_array(const Bytes& mask, const py::array& kept, py::array& out, std::optional<int> num_threads) {
    require_float(kept, "values");
    require_float(out, "out");
    require_same_dtype(kept, out, "values and out");
    require_size(mask, packed_size(out.size(), 1), "mask");
    const uint8_t* const bits_of_mask = mask.data();
    require_size(kept, kernels().count_bits(bits_of_mask, out.size()), "values");
    const int threads = threads_from(num_threads);
    with_bits(out, [&](auto bits) {
        using Bits = decltype(bits);
        const Span<const Bits> in(data_of<Bits>(kept), kept.size());
        Bits* const values = writable_data_of<Bits>(out);
        const NativeCall call;
        decode_sparse(in, bits_of_mask, out.size(), threads, values);
    });
}

py::tuple sum_sparse_errors_array(const py::array& weight, const Bytes& mask, const py::array& kept,
                                  std::optional<int> num_threads) {
    require_float(weight, "weight");
    require_float(kept, "values");
    require_same_dtype(weight, kept, "weight and values");
    require_size(mask, packed_size(weight.size(), 1), "mask");
    const uint8_t* const bits_of_mask = mask.data();
    require_size(kept, kernels().count_bits(bits_of_mask, weight.size()), "values");
    const int threads = threads_from(num_threads);
    return tuple_of(with_bits(weight, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        const Span<const Bits> in(data_of<Bits>(kept), kept.size());
        const NativeCall call;
        return sum_sparse_errors(values, in, bits_of_mask, weight.size(), threads);
    }));
}

}  // namespace

void bind_prune(py::module_& module) {
    module.def("prune", &prune_arrays, py::arg("weights"), py::arg("rules"), py::arg("measured"),
               py::arg("num_threads") = py::none());
    module.def("n_m_keep", &n_m_keep_array, py::arg("weight"), py::arg("layout"), py::arg("n"), py::arg("m"),
               py::arg("num_threads") = py::none());
    module.def("encode_sparse", &encode_sparse_array, py::arg("weight"), py::arg("mask").noconvert(), py::arg("out"),
               py::arg("num_threads") = py::none());
    module.def("sum_sparse_errors", &sum_sparse_errors_array, py::arg("weight"), py::arg("mask").noconvert(),
               py::arg("values"), py::arg("num_threads") = py::none());
    module.def("decode_sparse", &decode_sparse_array, py::arg("mask").noconvert(), py::arg("values"), py::arg("out"),
               py::arg("num_threads") = py::none());
}

}  // namespace corepress
