#include <pybind11/stl.h>

#include "algo/palettize/fit_tables.h"
#include "algo/palettize/palettize.h"
#include "bindings/arrays.h"
#include "bindings/native_call.h"

namespace corepress {
namespace {

// One tensor of a list, with all that is needed while the interpreter runs other threads.
struct Job {
    py::array weight, lut;
    std::optional<Floats> importance;
    Bytes indices;
    GroupLayout layout;
    const void* values;
    const float* importances;
    const void* luts;
    void* fitted_luts;  // null where the table is given
    uint8_t* packed;
    FloatFormat format;
    Fit fit = {};
};

template <typename Bits>
void run(Job& job, int nbits, TableRule rule, int threads) {
    const Bits* const values = static_cast<const Bits*>(job.values);
    if (job.fitted_luts != nullptr) {
        job.fit = fit_tables(values, job.importances, job.layout, rule, threads, static_cast<Bits*>(job.fitted_luts));
    }
    if (!job.fit.finite) return;
    palettize(values, job.layout, nbits, static_cast<const Bits*>(job.luts), threads, job.packed);
}

Job make_job(const py::array& weight, const Layout& layout, int nbits, const std::optional<py::array>& given_lut,
             const std::optional<Floats>& importance) {
    const FloatFormat format = require_float(weight, "weight");
    if (importance) require_size(*importance, weight.size(), "importance");
    Job job{weight,
            {},
            importance,
            Bytes(packed_size(weight.size(), nbits)),
            layout_from(layout, weight),
            weight.data(),
            importance ? importance->data() : nullptr,
            nullptr,
            nullptr,
            nullptr,
            format};
    if (given_lut) {
        job.lut = *given_lut;
        require_float(job.lut, "lut");
        require_same_dtype(job.weight, job.lut, "weight and lut");
        require_size(job.lut, job.layout.groups << nbits, "lut");
    } else {
        job.lut = empty_like_float(weight, job.layout.groups << nbits);
        job.fitted_luts = job.lut.mutable_data();
    }
    job.luts = job.lut.data();
    job.packed = job.indices.mutable_data();
    return job;
}

// Fits tables, or takes those given, and assigns codes: a (lut, indices, noise) for each weight, the noise None unless
// it was found on the way; None for a weight that was found not to be finite.
py::list palettize_arrays(const std::vector<py::array>& weights, const std::vector<Layout>& layouts, int nbits,
                          const std::string& mode, const std::vector<std::optional<py::array>>& luts,
                          const std::vector<std::optional<Floats>>& importances, bool infinities,
                          std::optional<int> num_threads) {
    require(nbits >= 1 && nbits <= 8, "nbits must be 1 to 8, not ", nbits);
    require(mode == "kmeans" || mode == "uniform", "mode must be kmeans or uniform, not ", mode);
    require(layouts.size() == weights.size() && luts.size() == weights.size() && importances.size() == weights.size(),
            "there must be one layout, and one lut and importance, or None, per weight");
    const TableRule rule{mode == "uniform" ? TableMode::kUniform : TableMode::kKmeans, 1 << nbits, infinities};
    const int threads = threads_from(num_threads);
    std::vector<Job> jobs;
    std::vector<int64_t> sizes;
    for (size_t i = 0; i < weights.size(); ++i) {
        jobs.push_back(make_job(weights[i], layouts[i], nbits, luts[i], importances[i]));
        sizes.push_back(weights[i].size());
    }
    {
        const NativeCall call;
        parallel_jobs(sizes, threads, [&](int64_t index, int job_threads) {
            Job& job = jobs[static_cast<size_t>(index)];
            with_bits(job.format, [&](auto bits) { run<decltype(bits)>(job, nbits, rule, job_threads); });
        });
    }
    py::list results;
    for (const Job& job : jobs) {
        if (job.fit.finite) {
            results.append(py::make_tuple(job.lut, job.indices, tuple_of(job.fit.noise)));
        } else {
            results.append(py::none());
        }
    }
    return results;
}

// Each group's distinct values; None for a group that has more than `most`.
py::list distinct_values_array(const py::array& weight, const Layout& layout, int most,
                               std::optional<int> num_threads) {
    require_float(weight, "weight");
    require(most >= 1, "most must be at least 1, not ", most);
    const GroupLayout groups = layout_from(layout, weight);
    const int threads = threads_from(num_threads);
    py::list result;
    with_bits(weight, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        std::vector<std::vector<Bits>> distinct;
        {
            const NativeCall call;
            distinct = distinct_values(values, groups, most, threads);
        }
        for (const std::vector<Bits>& group : distinct) {
            if (group.empty()) {
                result.append(py::none());
                continue;
            }
            py::array array = empty_like_float(weight, static_cast<int64_t>(group.size()));
            std::copy(group.begin(), group.end(), writable_data_of<Bits>(array));
            result.append(array);
        }
    });
    return result;
}

// Checks that a palette belongs to an array of values to compare with.
GroupLayout palette_layout(const Bytes& indices, const Layout& layout, int nbits, const py::array& lut,
                           const py::array& values) {
    require_float(lut, "lut");
    require_float(values, "weight");
    require_same_dtype(lut, values, "lut and weight");
    require_nbits(nbits);
    const GroupLayout groups = layout_from(layout, values);
    require_size(indices, packed_size(values.size(), nbits), "indices");
    require_size(lut, groups.groups << nbits, "lut");
    return groups;
}

py::tuple sum_palette_errors_array(const py::array& weight, const Bytes& indices, const Layout& layout, int nbits,
                                   const py::array& lut, std::optional<int> num_threads) {
    const GroupLayout groups = palette_layout(indices, layout, nbits, lut, weight);
    const int threads = threads_from(num_threads);
    const uint8_t* const packed = indices.data();
    return tuple_of(with_bits(weight, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        const Bits* const luts = data_of<Bits>(lut);
        const NativeCall call;
        return sum_palette_errors(values, packed, groups, nbits, luts, threads);
    }));
}

}  // namespace

void bind_palettize(py::module_& module) {
    module.def("palettize", &palettize_arrays, py::arg("weights"), py::arg("layouts"), py::arg("nbits"),
               py::arg("mode"), py::arg("luts"), py::arg("importances"), py::arg("infinities") = false,
               py::arg("num_threads") = py::none());
    module.def("sum_palette_errors", &sum_palette_errors_array, py::arg("weight"), py::arg("indices").noconvert(),
               py::arg("layout"), py::arg("nbits"), py::arg("lut"), py::arg("num_threads") = py::none());
    module.def("distinct_values", &distinct_values_array, py::arg("weight"), py::arg("layout"), py::arg("most"),
               py::arg("num_threads") = py::none());
}

}  // namespace corepress
