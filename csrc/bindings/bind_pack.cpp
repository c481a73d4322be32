#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>

#include "bindings/arrays.h"
#include "core/parallel.h"
#include "dispatch.h"

namespace corepress {
namespace {

constexpr int64_t kTile = 16384;  // codes that stay in the first-level cache; a multiple of 8

void require_width(int nbits) { require(nbits >= 1 && nbits <= 8, "nbits must be 1 to 8, not ", nbits); }

// False if a code does not fit.
bool pack_bits(const Bytes& codes, int nbits, bool is_signed, bool big, Bytes& out, std::optional<int> num_threads) {
    require_width(nbits);
    require_size(out, packed_size(codes.size(), nbits), "out");
    const int threads = threads_from(num_threads);
    const uint8_t* const in = codes.data();
    uint8_t* const packed = out.mutable_data();
    const py::gil_scoped_release release;
    const auto pack = big ? kernels().pack_big : kernels().pack;
    const uint8_t offset = static_cast<uint8_t>(is_signed ? 1u << (nbits - 1) : 0u);
    std::atomic<bool> fits{true};
    parallel_pieces(codes.size(), kGrain, threads, [&](int64_t begin, int64_t end) {
        for (int64_t tile = begin; tile < end; tile += kTile) {
            const int64_t count = std::min(kTile, end - tile);
            if (kernels().merge_codes(in + tile, count, offset) >> nbits != 0) fits = false;
            pack(in + tile, count, nbits, packed + tile * nbits / 8);
        }
    });
    return fits;
}

void unpack_bits(const Bytes& data, int nbits, bool is_signed, bool big, int64_t count, Bytes& out,
                 std::optional<int> num_threads) {
    require_width(nbits);
    require(count >= 0, "count must not be negative, not ", count);
    require_size(data, packed_size(count, nbits), "data");
    require_size(out, count, "out");
    const int threads = threads_from(num_threads);
    const uint8_t* const packed = data.data();
    uint8_t* const codes = out.mutable_data();
    const py::gil_scoped_release release;
    const auto unpack = big ? kernels().unpack_big : kernels().unpack;
    parallel_pieces(count, kGrain, threads, [&](int64_t begin, int64_t end) {
        for (int64_t tile = begin; tile < end; tile += kTile) {
            const int64_t length = std::min(kTile, end - tile);
            unpack(packed + tile * nbits / 8, length, nbits, codes + tile);
            if (is_signed) kernels().extend_signs(codes + tile, length, nbits);
        }
    });
}

int64_t count_bits(const Bytes& mask, int64_t count) {
    require(count >= 0, "count must not be negative, not ", count);
    require_size(mask, packed_size(count, 1), "mask");
    const uint8_t* const bits = mask.data();
    const py::gil_scoped_release release;
    return kernels().count_bits(bits, count);
}

}  // namespace

void bind_pack(py::module_& module) {
    module.def("pack_bits", &pack_bits, py::arg("codes").noconvert(), py::arg("nbits"), py::arg("is_signed"),
               py::arg("big"), py::arg("out").noconvert(), py::arg("num_threads") = py::none());
    module.def("unpack_bits", &unpack_bits, py::arg("data").noconvert(), py::arg("nbits"), py::arg("is_signed"),
               py::arg("big"), py::arg("count"), py::arg("out").noconvert(), py::arg("num_threads") = py::none());
    module.def("count_bits", &count_bits, py::arg("mask").noconvert(), py::arg("count"));
}

}  // namespace corepress
