#include <pybind11/stl.h>

#include <cmath>

#include "algo/soft_kmeans/nearest.h"
#include "algo/soft_kmeans/soft_kmeans.h"
#include "bindings/arrays.h"
#include "bindings/native_call.h"

namespace corepress {
namespace {

using Doubles = py::array_t<double, py::array::c_style>;
using Codes = py::array_t<uint16_t, py::array::c_style>;
using Numbers = py::array_t<int64_t, py::array::c_style>;

// temperature, smallest, threshold, tolerance, rounds, enforce_zero, exact
using Options = std::tuple<double, double, double, double, int64_t, bool, bool>;

// bfloat16 comes as the bits of its values, uint16: PyTorch has arrays of them, NumPy has no dtype.
FloatFormat format_of(const py::array& array, const char* name) {
    const py::dtype dtype = array.dtype();
    if (dtype.kind() != 'u' || dtype.itemsize() != 2) return require_float(array, name);
    require_contiguous(array, name);
    return FloatFormat::kBFloat16;
}

SoftOptions options_from(const Options& given) {
    const auto& [temperature, smallest, threshold, tolerance, rounds, enforce_zero, exact] = given;
    require(temperature > 0 && std::isfinite(temperature), "temperature must be positive and finite");
    require(smallest >= 0 && smallest < 1, "smallest_weight must be from 0 to less than 1");
    require(std::isfinite(threshold), "prune_threshold must be finite");
    require(rounds >= 1, "iterations must be at least 1");
    return {temperature, smallest, threshold, tolerance, rounds, enforce_zero, exact};
}

// Groups of values (groups, n, length) and their entries (groups, rounds + 1, k, length).
struct Groups {
    int64_t groups, count, length, entries;
};

Groups groups_from(const py::array& weight, const Doubles& centroids, const Doubles& sums, const Numbers& used,
                   const SoftOptions& options) {
    require(weight.ndim() == 3 && weight.size() > 0, "weight must be (groups, n, length), with elements");
    require(centroids.ndim() == 4, "centroids must be (groups, iterations + 1, k, length)");
    const Groups groups{weight.shape(0), weight.shape(1), weight.shape(2), centroids.shape(2)};
    require(groups.entries >= 1, "there must be centroids");
    require_size(centroids, groups.groups * (options.rounds + 1) * groups.entries * groups.length, "centroids");
    require_size(sums, groups.groups * options.rounds * groups.entries, "sums");
    require_size(used, groups.groups, "rounds");
    return groups;
}

// Calls body(group, threads) for all groups, several at a time.
template <typename Body>
void for_each_group(const Groups& groups, int threads, const Body& body) {
    const std::vector<int64_t> sizes(static_cast<std::size_t>(groups.groups), groups.count * groups.length);
    parallel_jobs(sizes, threads, body);
}

void soft_kmeans(const py::array& weight, Doubles& centroids, Doubles& sums, Numbers& used, const Options& given,
                 py::array& out, std::optional<int> num_threads) {
    const FloatFormat format = format_of(weight, "weight");
    require_contiguous(out, "out");
    require_same_dtype(weight, out, "weight and out");
    const SoftOptions options = options_from(given);
    const Groups groups = groups_from(weight, centroids, sums, used, options);
    require_size(out, weight.size(), "out");
    const int threads = threads_from(num_threads);
    double* const entries = centroids.mutable_data();
    double* const weights = sums.mutable_data();
    int64_t* const rounds = used.mutable_data();
    with_bits(format, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        Bits* const results = writable_data_of<Bits>(out);
        const NativeCall call;
        for_each_group(groups, threads, [&](int64_t group, int own_threads) {
            const int64_t size = groups.count * groups.length;
            rounds[group] =
                soft_forward<Bits>({values + group * size, groups.count, groups.length, groups.entries}, options,
                                   {entries + group * (options.rounds + 1) * groups.entries * groups.length,
                                    weights + group * options.rounds * groups.entries},
                                   own_threads, results + group * size);
        });
        return 0;
    });
}

void soft_kmeans_gradient(const py::array& weight, const py::array& gradient, Doubles& centroids, Doubles& sums,
                          const Numbers& used, const Options& given, py::array& out, std::optional<int> num_threads) {
    const FloatFormat format = format_of(weight, "weight");
    require_contiguous(gradient, "gradient");
    require_contiguous(out, "out");
    require_same_dtype(weight, gradient, "weight and gradient");
    require_same_dtype(weight, out, "weight and out");
    const SoftOptions options = options_from(given);
    const Groups groups = groups_from(weight, centroids, sums, used, options);
    require_size(gradient, weight.size(), "gradient");
    require_size(out, weight.size(), "out");
    const int threads = threads_from(num_threads);
    double* const entries = centroids.mutable_data();
    double* const weights = sums.mutable_data();
    for (int64_t group = 0; group < groups.groups; ++group) {
        const int64_t rounds = used.at(group);
        require(rounds >= 1 && rounds <= options.rounds, "rounds must be from 1 to ", options.rounds);
    }
    const int64_t* const rounds = used.data();
    with_bits(format, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        const Bits* const slopes = data_of<Bits>(gradient);
        Bits* const results = writable_data_of<Bits>(out);
        const NativeCall call;
        for_each_group(groups, threads, [&](int64_t group, int own_threads) {
            const int64_t size = groups.count * groups.length;
            soft_backward<Bits>({values + group * size, groups.count, groups.length, groups.entries},
                                slopes + group * size, options, rounds[group],
                                {entries + group * (options.rounds + 1) * groups.entries * groups.length,
                                 weights + group * options.rounds * groups.entries},
                                own_threads, results + group * size);
        });
        return 0;
    });
}

// Codes and values of the nearest entries, unless these are None.
void nearest_entries(const py::array& weight, const Doubles& centroids, double threshold, std::optional<Codes> codes,
                     std::optional<py::array> out, std::optional<int> num_threads) {
    const FloatFormat format = format_of(weight, "weight");
    require(weight.ndim() == 3 && centroids.ndim() == 3, "weight must be (groups, n, length), centroids likewise");
    require(std::isfinite(threshold), "prune_threshold must be finite");
    const Groups groups{weight.shape(0), weight.shape(1), weight.shape(2), centroids.shape(1)};
    require(groups.entries >= 1 && groups.entries <= 65536, "there must be 1 to 65536 centroids, not ", groups.entries);
    require_size(centroids, groups.groups * groups.entries * groups.length, "centroids");
    if (codes) require_size(*codes, groups.groups * groups.count, "codes");
    if (out) {
        require_contiguous(*out, "out");
        require_same_dtype(weight, *out, "weight and out");
        require_size(*out, weight.size(), "out");
    }
    if (weight.size() == 0) return;
    const int threads = threads_from(num_threads);
    const double* const entries = centroids.data();
    uint16_t* const places = codes ? codes->mutable_data() : nullptr;
    with_bits(format, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        Bits* const results = out ? writable_data_of<Bits>(*out) : nullptr;
        const NativeCall call;
        for_each_group(groups, threads, [&](int64_t group, int own_threads) {
            const int64_t size = groups.count * groups.length;
            assign_nearest<Bits>({values + group * size, groups.count, groups.length, groups.entries},
                                 entries + group * groups.entries * groups.length, threshold, own_threads,
                                 places ? places + group * groups.count : nullptr,
                                 results ? results + group * size : nullptr);
        });
        return 0;
    });
}

}  // namespace

void bind_soft_kmeans(py::module_& module) {
    module.def("soft_kmeans", &soft_kmeans, py::arg("weight"), py::arg("centroids").noconvert(),
               py::arg("sums").noconvert(), py::arg("rounds").noconvert(), py::arg("options"),
               py::arg("out").noconvert(), py::arg("num_threads") = py::none());
    module.def("soft_kmeans_gradient", &soft_kmeans_gradient, py::arg("weight"), py::arg("gradient"),
               py::arg("centroids").noconvert(), py::arg("sums").noconvert(), py::arg("rounds").noconvert(),
               py::arg("options"), py::arg("out").noconvert(), py::arg("num_threads") = py::none());
    module.def("nearest_entries", &nearest_entries, py::arg("weight"), py::arg("centroids").noconvert(),
               py::arg("threshold"), py::arg("codes").noconvert(), py::arg("out").noconvert(),
               py::arg("num_threads") = py::none());
}

}  // namespace corepress
