#include <pybind11/stl.h>

#include "algo/vectors/vector_palettes.h"
#include "bindings/arrays.h"
#include "bindings/native_call.h"
#include "core/half.h"

namespace corepress {
namespace {

// One tensor of a list, with all that is needed while the interpreter runs other threads.
struct Job {
    py::array weight, lut;
    Bytes indices;
    VectorLayout layout;
    const void* values;
    const uint32_t* importance;
    float importance_factor;
    void* luts;
    uint8_t* packed;
    FloatFormat format;
};

template <typename Bits>
void run(const Job& job, int nbits, int threads) {
    const VectorSource<Bits> source{static_cast<const Bits*>(job.values), job.layout, job.importance,
                                    job.importance_factor, nullptr};
    Bits* const luts = static_cast<Bits*>(job.luts);
    fit_vector_tables(source, 1 << nbits, threads, luts);
    palettize_vectors(source, nbits, luts, threads, job.packed);
}

// Importance and the power of two that brings it near 1.
using Importance = std::optional<std::pair<Floats, float>>;

// Fits tables of vectors and assigns codes: a (lut, indices) for each weight. layouts: of each weight's vectors.
py::list palettize_vectors_arrays(const std::vector<py::array>& weights, const std::vector<Layout>& layouts,
                                  const std::vector<int64_t>& inners, int64_t length, int nbits,
                                  const std::vector<Importance>& importance, std::optional<int> num_threads) {
    require_nbits(nbits);
    require(length >= 1, "length must be at least 1, not ", length);
    require(layouts.size() == weights.size() && inners.size() == weights.size() && importance.size() == weights.size(),
            "there must be one layout, one inner and one importance, or None, per weight");
    const int threads = threads_from(num_threads);
    std::vector<Job> jobs;
    std::vector<int64_t> sizes;
    for (size_t i = 0; i < weights.size(); ++i) {
        const py::array& weight = weights[i];
        const FloatFormat format = require_float(weight, "weight");
        const GroupLayout groups{layouts[i][0], layouts[i][1], layouts[i][2]};
        require(groups.outer >= 1 && groups.groups >= 1 && groups.run >= 1 && inners[i] >= 1 &&
                    groups.run % inners[i] == 0 && groups.size() * length == weight.size(),
                "layout does not hold the weight's vectors");
        if (importance[i]) require_size(importance[i]->first, weight.size(), "importance");
        Job job{weight,
                empty_like_float(weight, (groups.groups << nbits) * length),
                Bytes(packed_size(groups.size(), nbits)),
                VectorLayout{groups, inners[i], length},
                weight.data(),
                importance[i] ? reinterpret_cast<const uint32_t*>(importance[i]->first.data()) : nullptr,
                importance[i] ? importance[i]->second : 1.0f,
                nullptr,
                nullptr,
                format};
        job.luts = job.lut.mutable_data();
        job.packed = job.indices.mutable_data();
        jobs.push_back(job);
        sizes.push_back(weight.size());
    }
    {
        const NativeCall call;
        const auto run_job = [&](int64_t index, int job_threads) {
            const Job& job = jobs[static_cast<size_t>(index)];
            with_bits(job.format, [&](auto bits) { run<decltype(bits)>(job, nbits, job_threads); });
        };
        parallel_jobs(sizes, threads, run_job, (int64_t{1} << 21) / threads);
    }
    py::list results;
    for (const Job& job : jobs) results.append(py::make_tuple(job.lut, job.indices));
    return results;
}

// Checks that a palette belongs to an array of decoded values, or of values to compare with.
VectorBlocks palette_blocks(const Bytes& indices, const std::vector<std::pair<int64_t, int64_t>>& layout, int64_t inner,
                            int64_t length, int nbits, const py::array& lut, const py::array& values,
                            const std::string& name) {
    require_float(lut, "lut");
    require_float(values, name.c_str());
    require_same_dtype(lut, values, ("lut and " + name).c_str());
    require_nbits(nbits);
    require(inner >= 1 && length >= 1, "inner and length must be at least 1");
    std::vector<Split> splits;
    for (const auto& [groups, size] : layout) {
        require(groups >= 1 && size >= 1, "layout has an empty part");
        splits.push_back({groups, size});
    }
    VectorBlocks blocks{BlockLayout(splits), inner, length};
    require(blocks.groups.size() % inner == 0 && blocks.groups.size() * length == values.size(),
            "layout does not hold the vectors of ", values.size(), " elements");
    require_size(indices, packed_size(blocks.groups.size(), nbits), "indices");
    require_size(lut, (blocks.groups.groups() << nbits) * length, "lut");
    return blocks;
}

void depalettize_vectors_array(const Bytes& indices, const std::vector<std::pair<int64_t, int64_t>>& layout,
                               int64_t inner, int64_t length, int nbits, const py::array& lut, py::array& out,
                               std::optional<int> num_threads) {
    const VectorBlocks blocks = palette_blocks(indices, layout, inner, length, nbits, lut, out, "out");
    const int threads = threads_from(num_threads);
    const uint8_t* const packed = indices.data();
    with_bits(out, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const luts = data_of<Bits>(lut);
        Bits* const values = writable_data_of<Bits>(out);
        const NativeCall call;
        depalettize_vectors(packed, blocks, nbits, luts, threads, values);
    });
}

py::tuple sum_vector_errors_array(const py::array& weight, const Bytes& indices,
                                  const std::vector<std::pair<int64_t, int64_t>>& layout, int64_t inner, int64_t length,
                                  int nbits, const py::array& lut, std::optional<int> num_threads) {
    const VectorBlocks blocks = palette_blocks(indices, layout, inner, length, nbits, lut, weight, "weight");
    const int threads = threads_from(num_threads);
    const uint8_t* const packed = indices.data();
    return tuple_of(with_bits(weight, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        const Bits* const luts = data_of<Bits>(lut);
        const NativeCall call;
        return sum_vector_errors(values, packed, blocks, nbits, luts, threads);
    }));
}

// vectors: [count, length], weights: [count] or None. (codes, centroids, inertia).
py::tuple kmeans_arrays(const py::array& vectors, int64_t k, const std::optional<Floats>& weights,
                        std::optional<int> num_threads) {
    require_float(vectors, "vectors");
    require(vectors.ndim() == 2 && vectors.size() >= 1, "vectors must be [count, length] and not empty");
    require(k >= 1 && k <= 65536, "k must be from 1 to 65536, not ", k);
    const int64_t count = vectors.shape(0), length = vectors.shape(1);
    if (weights) require_size(*weights, count, "weights");
    const int threads = threads_from(num_threads);
    py::array_t<int32_t> codes(count);
    Floats centroids({static_cast<py::ssize_t>(k), static_cast<py::ssize_t>(length)});
    const float* const shares = weights ? weights->data() : nullptr;
    int32_t* const code_data = codes.mutable_data();
    float* const centroid_data = centroids.mutable_data();
    const double inertia = with_bits(vectors, [&](auto bits) {
        using Bits = decltype(bits);
        const VectorSource<Bits> source{data_of<Bits>(vectors), {{1, 1, count}, 1, length}, nullptr, 1, shares};
        const NativeCall call;
        return cluster_vectors(source, k, threads, centroid_data, code_data);
    });
    return py::make_tuple(codes, centroids, inertia);
}

}  // namespace

void bind_vectors(py::module_& module) {
    module.def("palettize_vectors", &palettize_vectors_arrays, py::arg("weights"), py::arg("layouts"),
               py::arg("inners"), py::arg("length"), py::arg("nbits"), py::arg("importance"),
               py::arg("num_threads") = py::none());
    module.def("depalettize_vectors", &depalettize_vectors_array, py::arg("indices").noconvert(), py::arg("layout"),
               py::arg("inner"), py::arg("length"), py::arg("nbits"), py::arg("lut"), py::arg("out"),
               py::arg("num_threads") = py::none());
    module.def("sum_vector_errors", &sum_vector_errors_array, py::arg("weight"), py::arg("indices").noconvert(),
               py::arg("layout"), py::arg("inner"), py::arg("length"), py::arg("nbits"), py::arg("lut"),
               py::arg("num_threads") = py::none());
    module.def("kmeans", &kmeans_arrays, py::arg("vectors"), py::arg("k"), py::arg("weights").noconvert(),
               py::arg("num_threads") = py::none());
}

}  // namespace corepress
