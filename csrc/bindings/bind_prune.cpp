#include <pybind11/stl.h>

#include <algorithm>

#include "algo/prune.h"
#include "algo/structure.h"
#include "bindings/arrays.h"
#include "dispatch.h"
#include "kernels/table.h"

namespace corepress {
namespace {

// With the noise of zeroing all up to that magnitude, or None if that takes another pass.
py::tuple magnitude_of_rank_array(const py::array& weight, int64_t rank, std::optional<int> num_threads) {
    require_float(weight, "weight");
    require(rank >= 0 && rank < weight.size(), "rank must be from 0 to ", weight.size() - 1, ", not ", rank);
    const int threads = threads_from(num_threads);
    py::array result = empty_like_float(weight, 1);
    Noise noise;
    with_bits(weight, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        Bits* const magnitude = writable_data_of<Bits>(result);
        const py::gil_scoped_release release;
        *magnitude = magnitude_of_rank(values, weight.size(), rank, threads, &noise);
    });
    return py::make_tuple(result, tuple_of(is_half(weight) ? &noise : nullptr));
}

py::tuple magnitude_mask_array(const py::array& weight, const py::array& threshold, std::optional<int> num_threads) {
    require_float(weight, "weight");
    require_float(threshold, "threshold");
    require_same_dtype(weight, threshold, "weight and threshold");
    require_size(threshold, 1, "threshold");
    const int threads = threads_from(num_threads);
    Bytes mask(packed_size(weight.size(), 1));
    uint8_t* const out = mask.mutable_data();
    const int64_t ones = with_bits(weight, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        const Bits magnitude = *data_of<Bits>(threshold);
        const py::gil_scoped_release release;
        return magnitude_mask(values, weight.size(), magnitude, threads, out);
    });
    return py::make_tuple(mask, ones);
}

Bytes n_m_mask_array(const py::array& weight, const Layout& layout, int64_t n, int64_t m,
                     std::optional<int> num_threads) {
    require_float(weight, "weight");
    const GroupLayout axis = layout_from(layout, weight);
    require(m >= 1 && m <= kLargestGroup && n >= 0 && n <= m, "n:m must have 0 <= n <= m and 1 <= m <= ", kLargestGroup,
            ", not ", n, ":", m);
    const int threads = threads_from(num_threads);
    Bytes keep(weight.size());
    uint8_t* const out = keep.mutable_data();
    with_bits(weight, [&](auto bits) {
        const auto* const values = data_of<decltype(bits)>(weight);
        const py::gil_scoped_release release;
        if (axis.size() != 0) n_m_mask(values, axis, n, m, threads, out);
    });
    return keep;
}

Bytes block_mask_array(const py::array& weight, const Layout& layout, int64_t block_size, int64_t rank,
                       std::optional<int> num_threads) {
    require_float(weight, "weight");
    const GroupLayout axis = layout_from(layout, weight);
    require(block_size >= 1, "block_size must be at least 1, not ", block_size);
    require(rank >= 0 && rank < weight.size(), "rank must be from 0 to ", weight.size() - 1, ", not ", rank);
    const int threads = threads_from(num_threads);
    Bytes keep(weight.size());
    uint8_t* const out = keep.mutable_data();
    with_bits(weight, [&](auto bits) {
        const auto* const values = data_of<decltype(bits)>(weight);
        const py::gil_scoped_release release;
        block_mask(values, axis, std::min(block_size, axis.groups), rank, threads, out);
    });
    return keep;
}

py::tuple mask_of_kept_array(const py::array& weight, const Bytes& keep, std::optional<int> num_threads) {
    require_float(weight, "weight");
    require_size(keep, weight.size(), "keep");
    const int threads = threads_from(num_threads);
    Bytes mask(packed_size(weight.size(), 1));
    uint8_t* const out = mask.mutable_data();
    const uint8_t* const kept = keep.data();
    const int64_t ones = with_bits(weight, [&](auto bits) {
        const auto* const values = data_of<decltype(bits)>(weight);
        const py::gil_scoped_release release;
        return mask_of_kept(values, kept, weight.size(), threads, out);
    });
    return py::make_tuple(mask, ones);
}

py::array encode_sparse_array(const py::array& weight, const Bytes& mask, std::optional<int> num_threads) {
    require_float(weight, "weight");
    require_size(mask, packed_size(weight.size(), 1), "mask");
    const int threads = threads_from(num_threads);
    const uint8_t* const bits_of_mask = mask.data();
    py::array kept = empty_like_float(weight, kernels().count_bits(bits_of_mask, weight.size()));
    with_bits(weight, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        Bits* const out = writable_data_of<Bits>(kept);
        const py::gil_scoped_release release;
        encode_sparse(values, weight.size(), bits_of_mask, threads, out);
    });
    return kept;
}

void decode_sparse_array(const Bytes& mask, const py::array& kept, py::array& out, std::optional<int> num_threads) {
    require_float(kept, "values");
    require_float(out, "out");
    require_same_dtype(kept, out, "values and out");
    require_size(mask, packed_size(out.size(), 1), "mask");
    const uint8_t* const bits_of_mask = mask.data();
    require_size(kept, kernels().count_bits(bits_of_mask, out.size()), "values");
    const int threads = threads_from(num_threads);
    with_bits(out, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const in = data_of<Bits>(kept);
        Bits* const values = writable_data_of<Bits>(out);
        const py::gil_scoped_release release;
        decode_sparse(in, bits_of_mask, out.size(), threads, values);
    });
}

py::tuple sum_sparse_errors_array(const py::array& weight, const Bytes& mask, const py::array& kept,
                                  std::optional<int> num_threads) {
    require_float(weight, "weight");
    require_float(kept, "values");
    require_same_dtype(weight, kept, "weight and values");
    require_size(mask, packed_size(weight.size(), 1), "mask");
    const uint8_t* const bits_of_mask = mask.data();
    require_size(kept, kernels().count_bits(bits_of_mask, weight.size()), "values");
    const int threads = threads_from(num_threads);
    return tuple_of(with_bits(weight, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        const Bits* const in = data_of<Bits>(kept);
        const py::gil_scoped_release release;
        return sum_sparse_errors(values, in, bits_of_mask, weight.size(), threads);
    }));
}

}  // namespace

void bind_prune(py::module_& module) {
    module.def("magnitude_of_rank", &magnitude_of_rank_array, py::arg("weight"), py::arg("rank"),
               py::arg("num_threads") = py::none());
    module.def("magnitude_mask", &magnitude_mask_array, py::arg("weight"), py::arg("threshold"),
               py::arg("num_threads") = py::none());
    module.def("n_m_mask", &n_m_mask_array, py::arg("weight"), py::arg("layout"), py::arg("n"), py::arg("m"),
               py::arg("num_threads") = py::none());
    module.def("block_mask", &block_mask_array, py::arg("weight"), py::arg("layout"), py::arg("block_size"),
               py::arg("rank"), py::arg("num_threads") = py::none());
    module.def("mask_of_kept", &mask_of_kept_array, py::arg("weight"), py::arg("keep").noconvert(),
               py::arg("num_threads") = py::none());
    module.def("encode_sparse", &encode_sparse_array, py::arg("weight"), py::arg("mask").noconvert(),
               py::arg("num_threads") = py::none());
    module.def("sum_sparse_errors", &sum_sparse_errors_array, py::arg("weight"), py::arg("mask").noconvert(),
               py::arg("values"), py::arg("num_threads") = py::none());
    module.def("decode_sparse", &decode_sparse_array, py::arg("mask").noconvert(), py::arg("values"), py::arg("out"),
               py::arg("num_threads") = py::none());
}

}  // namespace corepress
