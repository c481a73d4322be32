#include "algo/common/pack_bits.h"

#include <algorithm>
#include <atomic>

#include "core/parallel.h"
#include "dispatch.h"

namespace corepress {
namespace {

constexpr int64_t kTile = 16384;  // codes that stay in the first-level cache; a multiple of 8

}  // namespace

bool pack_bits(const uint8_t* codes, int64_t count, BitOrder order, int threads, uint8_t* packed) {
    const auto pack = order.big ? kernels().pack_big : kernels().pack;
    const uint8_t offset = static_cast<uint8_t>(order.is_signed ? 1u << (order.nbits - 1) : 0u);
    std::atomic<bool> fits{true};
    parallel_pieces(count, kGrain, threads, [&](int64_t begin, int64_t end) {
        for (int64_t tile = begin; tile < end; tile += kTile) {
            const int64_t length = std::min(kTile, end - tile);
            if (kernels().merge_codes(codes + tile, length, offset) >> order.nbits != 0) fits = false;
            pack(codes + tile, length, order.nbits, packed + tile * order.nbits / 8);
        }
    });
    return fits;
}

void unpack_bits(const uint8_t* packed, int64_t count, BitOrder order, int threads, uint8_t* codes) {
    const auto unpack = order.big ? kernels().unpack_big : kernels().unpack;
    parallel_pieces(count, kGrain, threads, [&](int64_t begin, int64_t end) {
        for (int64_t tile = begin; tile < end; tile += kTile) {
            const int64_t length = std::min(kTile, end - tile);
            unpack(packed + tile * order.nbits / 8, length, order.nbits, codes + tile);
            if (order.is_signed) kernels().extend_signs(codes + tile, length, order.nbits);
        }
    });
}

}  // namespace corepress
