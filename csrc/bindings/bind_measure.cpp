#include <pybind11/stl.h>

#include "algo/measure.h"
#include "bindings/arrays.h"
#include "core/half.h"

namespace corepress {
namespace {

int64_t count_nonfinite_array(const py::array& array, std::optional<int> num_threads) {
    require_float(array, "array");
    const int threads = threads_from(num_threads);
    return with_bits(array, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(array);
        const py::gil_scoped_release release;
        return count_nonfinite(values, array.size(), threads);
    });
}

py::tuple sum_errors_arrays(const py::array& first, const py::array& second, std::optional<int> num_threads) {
    require_float(first, "first");
    require_float(second, "second");
    require_same_dtype(first, second, "first and second");
    require_size(second, first.size(), "second");
    const int threads = threads_from(num_threads);
    const ErrorSums sums = with_bits(first, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const a = data_of<Bits>(first);
        const Bits* const b = data_of<Bits>(second);
        const py::gil_scoped_release release;
        return sum_errors(a, b, first.size(), threads);
    });
    return tuple_of(sums);
}

// The portable conversion, not the machine's instructions: tests compare the two.
py::array_t<uint16_t> half_bits(const py::array_t<float, py::array::c_style>& values) {
    py::array_t<uint16_t> halves(values.size());
    for (py::ssize_t i = 0; i < values.size(); ++i) halves.mutable_data()[i] = half_from_float(values.data()[i]);
    return halves;
}

}  // namespace

void bind_measure(py::module_& module) {
    module.def("count_nonfinite", &count_nonfinite_array, py::arg("array"), py::arg("num_threads") = py::none());
    module.def("sum_errors", &sum_errors_arrays, py::arg("first"), py::arg("second"),
               py::arg("num_threads") = py::none());
    module.def("half_bits", &half_bits, py::arg("values").noconvert());
}

}  // namespace corepress
