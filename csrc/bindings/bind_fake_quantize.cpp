#include <pybind11/stl.h>

#include <algorithm>
#include <vector>

#include "algo/affine/fake_quantize.h"
#include "bindings/arrays.h"
#include "bindings/native_call.h"

namespace corepress {
namespace {

using Doubles = py::array_t<double, py::array::c_style>;
using Ends = std::array<float, 2>;

std::vector<FakeStep> fake_steps(const Floats& scale, const Floats& zero_point, const GroupLayout& layout,
                                 const Ends& ends) {
    constexpr float kMost = 1 << 21;  // rounding by addition is exact up to twice that
    require_size(scale, layout.groups, "scale");
    require_size(zero_point, layout.groups, "zero_point");
    require(ends[0] <= ends[1] && -kMost <= ends[0] && ends[1] <= kMost, "ends must be integers in ascending order");
    std::vector<FakeStep> steps;
    steps.reserve(static_cast<std::size_t>(layout.groups));
    for (int64_t group = 0; group < layout.groups; ++group) {
        const float zero = std::min(std::max(zero_point.data()[group], ends[0]), ends[1]);
        steps.emplace_back(scale.data()[group], ends[0] - zero, ends[1] - zero);
    }
    return steps;
}

void quantize_array(const Floats& values, const Layout& layout, const Floats& scale, const Floats& zero_point,
                    const Ends& ends, Floats& out, std::optional<int> num_threads) {
    const GroupLayout groups = layout_from(layout, values);
    const std::vector<FakeStep> steps = fake_steps(scale, zero_point, groups, ends);
    require_size(out, values.size(), "out");
    const int threads = threads_from(num_threads);
    const float* const from = values.data();
    float* const to = out.mutable_data();
    const NativeCall call;
    fake_quantize_groups(from, groups, steps.data(), threads, to);
}

// `sums` is (groups, 2), or None.
void differentiate_array(const Floats& values, const Floats& gradient, const Layout& layout, const Floats& scale,
                         const Floats& zero_point, const Ends& ends, Floats& out, std::optional<Doubles> sums,
                         std::optional<int> num_threads) {
    const GroupLayout groups = layout_from(layout, values);
    const std::vector<FakeStep> steps = fake_steps(scale, zero_point, groups, ends);
    require_size(gradient, values.size(), "gradient");
    require_size(out, values.size(), "out");
    if (sums) require_size(*sums, 2 * groups.groups, "sums");
    const int threads = threads_from(num_threads);
    const float *const from = values.data(), *const slopes = gradient.data();
    float* const to = out.mutable_data();
    double* const found = sums ? sums->mutable_data() : nullptr;
    const NativeCall call;
    std::vector<FakeSlopes> of_groups(found ? static_cast<std::size_t>(groups.groups) : 0);
    fake_quantize_gradient(from, slopes, groups, steps.data(), threads, to, found ? of_groups.data() : nullptr);
    for (std::size_t i = 0; i < of_groups.size(); ++i) {
        found[2 * i] = of_groups[i].of_scale;
        found[2 * i + 1] = of_groups[i].outside;
    }
}

}  // namespace

void bind_fake_quantize(py::module_& module) {
    module.def("fake_quantize", &quantize_array, py::arg("values").noconvert(), py::arg("layout"),
               py::arg("scale").noconvert(), py::arg("zero_point").noconvert(), py::arg("ends"),
               py::arg("out").noconvert(), py::arg("num_threads") = py::none());
    module.def("fake_quantize_gradient", &differentiate_array, py::arg("values").noconvert(),
               py::arg("gradient").noconvert(), py::arg("layout"), py::arg("scale").noconvert(),
               py::arg("zero_point").noconvert(), py::arg("ends"), py::arg("out").noconvert(),
               py::arg("sums").noconvert(), py::arg("num_threads") = py::none());
}

}  // namespace corepress
