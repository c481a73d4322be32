#include <pybind11/stl.h>

#include "algo/affine/even_steps.h"
#include "bindings/arrays.h"
#include "bindings/native_call.h"

namespace corepress {
namespace {

const uint32_t* bits_of(const Floats& array) { return reinterpret_cast<const uint32_t*>(array.data()); }

std::vector<EvenStep> steps_from(const Floats& scale, const Floats& bias, const GroupLayout& layout) {
    require_size(scale, layout.groups, "scale");
    require_size(bias, layout.groups, "bias");
    std::vector<EvenStep> steps(static_cast<size_t>(layout.groups));
    for (size_t i = 0; i < steps.size(); ++i) steps[i] = {scale.data()[i], bias.data()[i]};
    return steps;
}

// Scales, biases and codes; None if a value, or what a code would stand for, is not finite.
py::object encode_array(const Floats& weight, const Layout& layout, int nbits, bool symmetric,
                        std::optional<int> num_threads) {
    require(nbits >= (symmetric ? 2 : 1) && nbits <= 8, "nbits must be ", symmetric ? 2 : 1, " to 8, not ", nbits);
    const GroupLayout groups = layout_from(layout, weight);
    const int threads = threads_from(num_threads);
    Floats scale(groups.groups), bias(groups.groups);
    Bytes codes(weight.size());
    const uint32_t* const values = bits_of(weight);
    uint8_t* const out = codes.mutable_data();
    std::vector<EvenStep> steps(static_cast<size_t>(groups.groups));
    bool is_done = false;
    {
        const NativeCall call;
        is_done = encode_even_steps(values, groups, {nbits, symmetric}, threads, steps.data(), out);
    }
    if (!is_done) return py::none();
    for (size_t i = 0; i < steps.size(); ++i) {
        scale.mutable_data()[i] = steps[i].scale;
        bias.mutable_data()[i] = steps[i].bias;
    }
    return py::make_tuple(scale, bias, codes);
}

void decode_array(const Bytes& codes, const Layout& layout, bool is_signed, const Floats& scale, const Floats& bias,
                  Floats& out, std::optional<int> num_threads) {
    const GroupLayout groups = layout_from(layout, codes);
    const std::vector<EvenStep> steps = steps_from(scale, bias, groups);
    require_size(out, codes.size(), "out");
    const int threads = threads_from(num_threads);
    const uint8_t* const in = codes.data();
    auto* const values = reinterpret_cast<uint32_t*>(out.mutable_data());
    const NativeCall call;
    decode_even_steps(in, groups, is_signed, steps.data(), threads, values);
}

py::tuple sum_errors_array(const Floats& weight, const Bytes& codes, const Layout& layout, bool is_signed,
                           const Floats& scale, const Floats& bias, std::optional<int> num_threads) {
    const GroupLayout groups = layout_from(layout, weight);
    const std::vector<EvenStep> steps = steps_from(scale, bias, groups);
    require_size(codes, weight.size(), "codes");
    const int threads = threads_from(num_threads);
    const uint32_t* const values = bits_of(weight);
    const uint8_t* const in = codes.data();
    ErrorSums sums;
    {
        const NativeCall call;
        sums = sum_even_step_errors(values, in, groups, is_signed, steps.data(), threads);
    }
    return tuple_of(sums);
}

}  // namespace

void bind_steps(py::module_& module) {
    module.def("encode_even_steps", &encode_array, py::arg("weight").noconvert(), py::arg("layout"), py::arg("nbits"),
               py::arg("symmetric"), py::arg("num_threads") = py::none());
    module.def("decode_even_steps", &decode_array, py::arg("codes").noconvert(), py::arg("layout"),
               py::arg("is_signed"), py::arg("scale").noconvert(), py::arg("bias").noconvert(),
               py::arg("out").noconvert(), py::arg("num_threads") = py::none());
    module.def("sum_even_step_errors", &sum_errors_array, py::arg("weight").noconvert(), py::arg("codes").noconvert(),
               py::arg("layout"), py::arg("is_signed"), py::arg("scale").noconvert(), py::arg("bias").noconvert(),
               py::arg("num_threads") = py::none());
}

}  // namespace corepress
