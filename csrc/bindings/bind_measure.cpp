#include <pybind11/stl.h>

#include "algo/common/measure.h"
#include "bindings/arrays.h"
#include "bindings/native_call.h"
#include "core/half.h"

namespace corepress {
namespace {

int64_t count_nonfinite_array(const py::array& array, std::optional<int> num_threads) {
    require_float(array, "array");
    const int threads = threads_from(num_threads);
    return with_bits(array, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(array);
        const NativeCall call;
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
        const NativeCall call;
        return sum_errors(a, b, first.size(), threads);
    });
    return tuple_of(sums);
}

// Rounds once, to nearest even; -0 becomes 0.
void round_to(const py::array_t<double, py::array::c_style>& values, py::array& out) {
    require_float(out, "out");
    require_size(out, values.size(), "out");
    with_bits(out, [&](auto bits) {
        auto* const rounded = writable_data_of<decltype(bits)>(out);
        for (py::ssize_t i = 0; i < values.size(); ++i) rounded[i] = bits_from_double<decltype(bits)>(values.data()[i]);
    });
}

// The portable conversion, not the machine's instructions: tests compare the two.
py::array_t<uint16_t> half_bits(const py::array_t<float, py::array::c_style>& values) {
    py::array_t<uint16_t> halves(values.size());
    for (py::ssize_t i = 0; i < values.size(); ++i) halves.mutable_data()[i] = half_from_float(values.data()[i]);
    return halves;
}

// float32 or float64, each rounded once.
py::array_t<uint16_t> round_to_half_array(const py::array& values, std::optional<int> num_threads) {
    require_contiguous(values, "values");
    const bool wide = py::isinstance<py::array_t<double>>(values);
    if (!wide && !py::isinstance<py::array_t<float>>(values)) {
        throw py::type_error("values must be float32 or float64, not " + std::string(py::str(values.dtype())));
    }
    py::array_t<uint16_t> halves(values.size());
    const int threads = threads_from(num_threads);
    const void* const from = values.data();
    uint16_t* const to = halves.mutable_data();
    const py::ssize_t count = values.size();
    const NativeCall call;
    if (wide) {
        round_to_half(static_cast<const double*>(from), count, threads, to);
    } else {
        round_to_half(static_cast<const float*>(from), count, threads, to);
    }
    return halves;
}

}  // namespace

void bind_measure(py::module_& module) {
    module.def("count_nonfinite", &count_nonfinite_array, py::arg("array"), py::arg("num_threads") = py::none());
    module.def("sum_errors", &sum_errors_arrays, py::arg("first"), py::arg("second"),
               py::arg("num_threads") = py::none());
    module.def("round_to", &round_to, py::arg("values").noconvert(), py::arg("out").noconvert());
    module.def("round_to_half", &round_to_half_array, py::arg("values"), py::arg("num_threads") = py::none());
    module.def("half_bits", &half_bits, py::arg("values").noconvert());
}

}  // namespace corepress
