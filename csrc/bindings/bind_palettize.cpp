#include <pybind11/stl.h>

#include "algo/kmeans1d.h"
#include "algo/palettize.h"
#include "bindings/arrays.h"

namespace corepress {
namespace {

py::tuple palettize_array(const py::array& weight, const Layout& layout, int nbits, std::optional<int> num_threads) {
    require_float(weight, "weight");
    require_nbits(nbits);
    const GroupLayout groups = layout_from(layout, weight);
    const int threads = threads_from(num_threads);
    py::array lut = empty_like_float(weight, groups.groups << nbits);
    Bytes indices(packed_size(weight.size(), nbits));
    uint8_t* const packed = indices.mutable_data();
    with_bits(weight, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        Bits* const luts = writable_data_of<Bits>(lut);
        const py::gil_scoped_release release;
        palettize(values, groups, nbits, threads, luts, packed);
    });
    return py::make_tuple(lut, indices);
}

void depalettize_array(const Bytes& indices, const Layout& layout, int nbits, const py::array& lut, py::array& out,
                       std::optional<int> num_threads) {
    require_float(lut, "lut");
    require_float(out, "out");
    require_same_dtype(lut, out, "lut and out");
    require_nbits(nbits);
    const GroupLayout groups = layout_from(layout, out);
    require_size(indices, packed_size(out.size(), nbits), "indices");
    require_size(lut, groups.groups << nbits, "lut");
    const int threads = threads_from(num_threads);
    const uint8_t* const packed = indices.data();
    with_bits(out, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const luts = data_of<Bits>(lut);
        Bits* const values = writable_data_of<Bits>(out);
        const py::gil_scoped_release release;
        depalettize(packed, groups, nbits, luts, threads, values);
    });
}

// values ascend strictly; returns the ends of the clusters, their means, and how the solution was found.
py::tuple kmeans1d_sorted(const py::array_t<double, py::array::c_style>& values,
                          const py::array_t<double, py::array::c_style>& weights, int k) {
    require_size(weights, values.size(), "weights");
    require(values.size() >= 1, "values must not be empty");
    require(k >= 1, "k must be at least 1, not ", k);
    const int64_t count = values.size();
    std::vector<Point> points(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
        points[static_cast<size_t>(i)] = {values.data()[i], weights.data()[i]};
        require(weights.data()[i] > 0, "weights must be positive, not ", weights.data()[i]);
        require(i == 0 || values.data()[i - 1] < values.data()[i], "values must ascend strictly");
    }
    ScalarKmeans solver;
    {
        const py::gil_scoped_release release;
        solver.solve({points.data(), count}, k);
    }
    const auto clusters = static_cast<py::ssize_t>(solver.ends().size());
    py::array_t<int64_t> ends(clusters);
    py::array_t<double> centroids(clusters);
    for (py::ssize_t c = 0; c < clusters; ++c) {
        ends.mutable_data()[c] = solver.ends()[static_cast<size_t>(c)];
        centroids.mutable_data()[c] = solver.centroid(static_cast<int>(c));
    }
    py::dict effort;
    effort["passes"] = solver.passes();
    effort["extended"] = solver.extended();
    return py::make_tuple(ends, centroids, effort);
}

}  // namespace

void bind_palettize(py::module_& module) {
    module.def("palettize", &palettize_array, py::arg("weight"), py::arg("layout"), py::arg("nbits"),
               py::arg("num_threads") = py::none());
    module.def("depalettize", &depalettize_array, py::arg("indices").noconvert(), py::arg("layout"), py::arg("nbits"),
               py::arg("lut"), py::arg("out"), py::arg("num_threads") = py::none());
    module.def("kmeans1d_sorted", &kmeans1d_sorted, py::arg("values").noconvert(), py::arg("weights").noconvert(),
               py::arg("k"));
}

}  // namespace corepress
