#include <pybind11/stl.h>

#include "algo/palettize/kmeans1d_rows.h"
#include "bindings/arrays.h"
#include "bindings/native_call.h"

namespace corepress {
namespace {

using Doubles = py::array_t<double, py::array::c_style>;

// values, and weights unless None: [rows, columns]. A (codes, centroids, inertia) for each k.
py::list kmeans1d_arrays(const Doubles& values, const std::optional<Doubles>& weights, const std::vector<int>& ks,
                         std::optional<int> num_threads) {
    require(values.ndim() == 2 && values.shape(1) >= 1, "values must have rows of at least one value");
    if (weights) require_size(*weights, values.size(), "weights");
    const py::ssize_t rows = values.shape(0), columns = values.shape(1);
    const int threads = threads_from(num_threads);
    py::list arrays;
    std::vector<RowClusters> results;
    for (const int k : ks) {
        require(k >= 1, "k must be at least 1, not ", k);
        py::array_t<int32_t> codes({rows, columns});
        Doubles centroids({rows, static_cast<py::ssize_t>(k)});
        Doubles inertia(rows);
        results.push_back({codes.mutable_data(), centroids.mutable_data(), inertia.mutable_data()});
        arrays.append(py::make_tuple(codes, centroids, inertia));
    }
    const double* const data = values.data();
    const double* const weight_data = weights ? weights->data() : nullptr;
    const NativeCall call;
    kmeans1d_rows(data, weight_data, rows, columns, {ks.data(), static_cast<int64_t>(ks.size())}, threads,
                  {results.data(), static_cast<int64_t>(results.size())});
    return arrays;
}

}  // namespace

void bind_kmeans(py::module_& module) {
    module.def("kmeans1d", &kmeans1d_arrays, py::arg("values").noconvert(), py::arg("weights").noconvert(),
               py::arg("ks"), py::arg("num_threads") = py::none());
}

}  // namespace corepress
