#include "algo/prune.h"

#include <atomic>
#include <cstring>
#include <vector>

#include "algo/mask_pieces.h"
#include "algo/slots.h"
#include "core/half.h"
#include "core/parallel.h"
#include "dispatch.h"

namespace corepress {
namespace {

// Counts slot(magnitude), for those magnitudes where slot gives one (not negative).
template <typename Bits, typename Slot>
Counts count_magnitudes(const Bits* values, int64_t count, int threads, const Slot& slot) {
    return count_slots(count, threads, [&](int64_t begin, int64_t end, SlotCounter& counter) {
        uint32_t* const even = counter.even.data();
        uint32_t* const odd = counter.odd.data();
        const auto add = [&](Bits value, uint32_t* counts) {
            const int32_t place = slot(static_cast<uint32_t>(value & Format<Bits>::kMagnitude));
            if (place >= 0) ++counts[place];
        };
        for (; begin + 4 <= end; begin += 4) {
            Bits four[4];
            std::memcpy(four, values + begin, sizeof four);
            add(four[0], even);
            add(four[1], odd);
            add(four[2], even);
            add(four[3], odd);
        }
        for (; begin < end; ++begin) add(values[begin], even);
        counter.flush();
    });
}

}  // namespace

std::vector<int64_t> piece_offsets(const uint8_t* mask, int64_t count, int threads) {
    std::vector<int64_t> offsets(static_cast<size_t>((count + kGrain - 1) / kGrain) + 1, 0);
    parallel_pieces(count, kGrain, threads, [&](int64_t begin, int64_t end) {
        offsets[static_cast<size_t>(begin / kGrain) + 1] = kernels().count_bits(mask + begin / 8, end - begin);
    });
    for (size_t i = 1; i < offsets.size(); ++i) offsets[i] += offsets[i - 1];
    return offsets;
}

template <typename Bits>
Bits magnitude_of_rank(const Bits* values, int64_t count, int64_t rank, int threads) {
    if constexpr (sizeof(Bits) == 2) {
        const auto counts =
            count_magnitudes(values, count, threads, [](uint32_t bits) { return static_cast<int32_t>(bits); });
        return static_cast<Bits>(find_rank(counts, rank));
    } else {
        const auto upper =
            count_magnitudes(values, count, threads, [](uint32_t bits) { return static_cast<int32_t>(bits >> 16); });
        const uint32_t high = find_rank(upper, rank);
        const auto lower = count_magnitudes(values, count, threads, [high](uint32_t bits) {
            return bits >> 16 == high ? static_cast<int32_t>(bits & 0xffffu) : -1;
        });
        return high << 16 | find_rank(lower, rank);
    }
}

template <typename Bits>
int64_t magnitude_mask(const Bits* values, int64_t count, Bits threshold, int threads, uint8_t* mask) {
    std::atomic<int64_t> ones{0};
    parallel_pieces(count, kGrain, threads, [&](int64_t begin, int64_t end) {
        ones += kernels_for<Bits>(kernels()).mask_above(values + begin, end - begin, threshold, mask + begin / 8);
    });
    return ones;
}

template <typename Bits>
void encode_sparse(const Bits* values, int64_t count, const uint8_t* mask, int threads, Bits* kept) {
    const std::vector<int64_t> offsets = piece_offsets(mask, count, threads);
    parallel_pieces(count, kGrain, threads, [&](int64_t begin, int64_t end) {
        const size_t piece = static_cast<size_t>(begin / kGrain);
        kernels_for<Bits>(kernels()).compact(values + begin, end - begin, mask + begin / 8, kept + offsets[piece],
                                             offsets[piece + 1] - offsets[piece]);
    });
}

template <typename Bits>
void decode_sparse(const Bits* kept, const uint8_t* mask, int64_t count, int threads, Bits* values) {
    const std::vector<int64_t> offsets = piece_offsets(mask, count, threads);
    parallel_pieces(count, kGrain, threads, [&](int64_t begin, int64_t end) {
        const size_t piece = static_cast<size_t>(begin / kGrain);
        kernels_for<Bits>(kernels()).expand(kept + offsets[piece], offsets[piece + 1] - offsets[piece],
                                            mask + begin / 8, end - begin, values + begin);
    });
}

template uint16_t magnitude_of_rank(const uint16_t*, int64_t, int64_t, int);
template uint32_t magnitude_of_rank(const uint32_t*, int64_t, int64_t, int);
template int64_t magnitude_mask(const uint16_t*, int64_t, uint16_t, int, uint8_t*);
template int64_t magnitude_mask(const uint32_t*, int64_t, uint32_t, int, uint8_t*);
template void encode_sparse(const uint16_t*, int64_t, const uint8_t*, int, uint16_t*);
template void encode_sparse(const uint32_t*, int64_t, const uint8_t*, int, uint32_t*);
template void decode_sparse(const uint16_t*, const uint8_t*, int64_t, int, uint16_t*);
template void decode_sparse(const uint32_t*, const uint8_t*, int64_t, int, uint32_t*);

}  // namespace corepress
