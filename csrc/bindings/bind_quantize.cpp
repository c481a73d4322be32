#include <pybind11/stl.h>

#include "algo/affine/quantize.h"
#include "bindings/arrays.h"
#include "bindings/layouts.h"
#include "bindings/native_call.h"

namespace corepress {
namespace {

// One tensor of a list, with all that is needed while the interpreter runs other threads.
struct Job {
    FloatFormat format;
    BlockLayout layout;
    py::array weight, scale;
    std::optional<Floats> importance;
    Bytes zero_point, packed;
    const void* values;
    const float* importances;
    void* scales;
    uint8_t* zero_points;
    uint8_t* codes;
    uint8_t* exponents;
    bool finite = true;
    Noise noise = {};
};

Job make_job(const py::array& weight, const Splits& splits, const AffineEncoding& encoding,
             const std::optional<Floats>& importance) {
    const FloatFormat format = require_float(weight, "weight");
    if (importance) require_size(*importance, weight.size(), "importance");
    BlockLayout layout = blocks_from(splits, weight.size());
    const int64_t groups = layout.groups();
    Job job{format,
            std::move(layout),
            weight,
            encoding.binary_scales ? py::array(Bytes(groups)) : empty_like_float(weight, groups),
            importance,
            Bytes(groups),
            Bytes(packed_size(weight.size(), encoding.type.nbits)),
            nullptr,
            nullptr,
            nullptr,
            nullptr,
            nullptr,
            nullptr};
    job.values = weight.data();
    job.importances = importance ? importance->data() : nullptr;
    void* const scales = job.scale.mutable_data();
    job.scales = encoding.binary_scales ? nullptr : scales;
    job.exponents = encoding.binary_scales ? static_cast<uint8_t*>(scales) : nullptr;
    job.zero_points = job.zero_point.mutable_data();
    job.codes = job.packed.mutable_data();
    return job;
}

// A (data, scale, zero_point, noise) for each weight, the noise None unless it is asked for; None for a weight that is
// not finite.
py::list quantize_arrays(const std::vector<py::array>& weights, const std::vector<Splits>& layouts,
                         const std::string& dtype, bool symmetric, bool search_scale, bool binary_scales,
                         const std::vector<std::optional<Floats>>& importances, bool measured,
                         std::optional<int> num_threads) {
    const AffineEncoding encoding{type_from(dtype), symmetric, search_scale, binary_scales};
    require(symmetric || (encoding.type.floats == nullptr && !binary_scales),
            "codes that are floats, and scales that are powers of two, must be symmetric");
    require(layouts.size() == weights.size() && importances.size() == weights.size(),
            "there must be one layout, and one importance or None, per weight");
    const int threads = threads_from(num_threads);
    std::vector<Job> jobs;
    std::vector<int64_t> sizes;
    for (size_t i = 0; i < weights.size(); ++i) {
        jobs.push_back(make_job(weights[i], layouts[i], encoding, importances[i]));
        sizes.push_back(weights[i].size());
    }
    {
        const NativeCall call;
        parallel_jobs(sizes, threads, [&](int64_t index, int job_threads) {
            Job& job = jobs[static_cast<size_t>(index)];
            with_bits(job.format, [&](auto bits) {
                using Bits = decltype(bits);
                job.finite = quantize(static_cast<const Bits*>(job.values), job.importances, job.layout, encoding,
                                      job_threads, static_cast<Bits*>(job.scales), job.zero_points, job.codes,
                                      measured ? &job.noise : nullptr, job.exponents);
            });
        });
    }
    py::list results;
    for (const Job& job : jobs) {
        if (job.finite) {
            const py::object noise = tuple_of(measured ? std::optional(job.noise) : std::nullopt);
            results.append(py::make_tuple(job.packed, job.scale, job.zero_point, noise));
        } else {
            results.append(py::none());
        }
    }
    return results;
}

void dequantize_array(const Bytes& packed, const Splits& splits, const std::string& dtype, const py::array& scale,
                      const std::optional<Bytes>& zero_point, py::array& out, std::optional<int> num_threads) {
    require_float(out, "out");
    require_scales(scale, out, "scale and out");
    const BlockLayout layout = blocks_from(splits, out.size());
    const CodeType type = type_from(dtype);
    require_size(packed, packed_size(out.size(), type.nbits), "data");
    require_size(scale, layout.groups(), "scale");
    if (zero_point) require_size(*zero_point, layout.groups(), "zero_point");
    const int threads = threads_from(num_threads);
    const uint8_t* const in = packed.data();
    const uint8_t* const zero_points = zero_point ? zero_point->data() : nullptr;
    with_bits(out, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const scales = are_exponents(scale) ? nullptr : data_of<Bits>(scale);
        const uint8_t* const exponents = are_exponents(scale) ? data_of<uint8_t>(scale) : nullptr;
        Bits* const values = writable_data_of<Bits>(out);
        const NativeCall call;
        dequantize(in, layout, type, scales, zero_points, threads, values, exponents);
    });
}

py::tuple sum_quantized_errors_array(const py::array& weight, const Bytes& packed, const Splits& splits,
                                     const std::string& dtype, const py::array& scale,
                                     const std::optional<Bytes>& zero_point, std::optional<int> num_threads) {
    require_float(weight, "weight");
    require_scales(scale, weight, "weight and scale");
    const BlockLayout layout = blocks_from(splits, weight.size());
    const CodeType type = type_from(dtype);
    require_size(packed, packed_size(weight.size(), type.nbits), "data");
    require_size(scale, layout.groups(), "scale");
    if (zero_point) require_size(*zero_point, layout.groups(), "zero_point");
    const int threads = threads_from(num_threads);
    const uint8_t* const codes = packed.data();
    const uint8_t* const zero_points = zero_point ? zero_point->data() : nullptr;
    return tuple_of(with_bits(weight, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        const Bits* const scales = are_exponents(scale) ? nullptr : data_of<Bits>(scale);
        const uint8_t* const exponents = are_exponents(scale) ? data_of<uint8_t>(scale) : nullptr;
        const NativeCall call;
        return sum_quantized_errors(values, codes, layout, type, scales, zero_points, threads, exponents);
    }));
}

}  // namespace

void bind_quantize(py::module_& module) {
    module.def("quantize", &quantize_arrays, py::arg("weights"), py::arg("layouts"), py::arg("dtype"),
               py::arg("symmetric"), py::arg("search_scale"), py::arg("binary_scales"), py::arg("importances"),
               py::arg("measured") = false, py::arg("num_threads") = py::none());
    module.def("dequantize", &dequantize_array, py::arg("data").noconvert(), py::arg("layout"), py::arg("dtype"),
               py::arg("scale"), py::arg("zero_point"), py::arg("out"), py::arg("num_threads") = py::none());
    module.def("sum_quantized_errors", &sum_quantized_errors_array, py::arg("weight"), py::arg("data").noconvert(),
               py::arg("layout"), py::arg("dtype"), py::arg("scale"), py::arg("zero_point"),
               py::arg("num_threads") = py::none());
}

}  // namespace corepress
