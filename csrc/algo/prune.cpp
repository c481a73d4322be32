#include "algo/prune.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
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

// The magnitude of a rank among many 16-bit values. A sample tells two bounds that it most likely lies between;
// counting the values below and only those between, a few percent, takes half the time of counting all. No result where
// the sample misled.
template <typename Bits>
std::optional<Bits> select_near_sample(const Bits* values, int64_t count, int64_t rank, int threads) {
    constexpr int64_t kSample = int64_t{1} << 14;
    constexpr int64_t kMargin = 320;  // five standard deviations of a rank near the middle
    constexpr Bits kMagnitude = Format<Bits>::kMagnitude;
    const int64_t stride = count / kSample;
    std::vector<Bits> sample(static_cast<size_t>(kSample));
    uint32_t place = 0;  // scattered, since a regular step could meet one column only
    for (int64_t i = 0; i < kSample; ++i, place += 2654435769u) {
        const int64_t within = static_cast<int64_t>(uint64_t{place} * static_cast<uint64_t>(stride) >> 32);
        sample[static_cast<size_t>(i)] = values[i * stride + within] & kMagnitude;
    }
    const auto of_sample = [&](int64_t at) {
        std::nth_element(sample.begin(), sample.begin() + at, sample.end());
        return sample[static_cast<size_t>(at)];
    };
    const int64_t near = static_cast<int64_t>(static_cast<double>(rank) / static_cast<double>(count) * kSample);
    const Bits first = near < kMargin ? Bits{0} : of_sample(near - kMargin);
    const Bits last = near + kMargin < kSample ? of_sample(near + kMargin) : kMagnitude;
    std::atomic<int64_t> below{0};
    const Counts counts = count_slots(count, threads, [&](int64_t begin, int64_t end, SlotCounter& counter) {
        const auto& loops = kernels_for<Bits>(kernels());
        uint8_t from_first[kGrain / 8], above_last[kGrain / 8];
        for (; begin < end; begin += kGrain) {
            const int64_t length = std::min(kGrain, end - begin);
            if (first == 0) {
                std::memset(from_first, 0xff, sizeof from_first);
            } else {
                below += length - loops.mask_above(values + begin, length, static_cast<Bits>(first - 1), from_first);
            }
            loops.mask_above(values + begin, length, last, above_last);
            for (int64_t i = 0; i < length; i += 64) {
                uint64_t lower, upper;
                std::memcpy(&lower, from_first + i / 8, sizeof lower);
                std::memcpy(&upper, above_last + i / 8, sizeof upper);
                uint64_t between = lower & ~upper;
                if (length - i < 64) between &= (uint64_t{1} << (length - i)) - 1;
                for (; between != 0; between &= between - 1) {
                    ++counter.total[values[begin + i + __builtin_ctzll(between)] & kMagnitude];
                }
            }
        }
    });
    rank -= below;
    int64_t between = 0;
    for (const int64_t each : counts) between += each;
    if (rank < 0 || rank >= between) return std::nullopt;
    return static_cast<Bits>(find_rank(counts, rank));
}

// Of 16-bit values, counted by their magnitudes, where those up to a magnitude become zero.
template <typename Bits>
Noise noise_up_to(uint32_t magnitude, const Counts& counts) {
    Noise noise;
    for (uint32_t bits = 0; bits < Format<Bits>::kInfinity; ++bits) {
        const double value = static_cast<double>(Format<Bits>::to_float(static_cast<Bits>(bits)));
        noise.squared_first += static_cast<double>(counts[bits]) * (value * value);
        if (bits == magnitude) noise.squared_error = noise.squared_first;
    }
    return noise;
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
Bits magnitude_of_rank(const Bits* values, int64_t count, int64_t rank, int threads, Noise* noise) {
    if constexpr (sizeof(Bits) == 2) {
        constexpr int64_t kMany = int64_t{1} << 20;
        if (count >= kMany && noise == nullptr) {
            if (const auto selected = select_near_sample(values, count, rank, threads)) return *selected;
        }
        const auto counts =
            count_magnitudes(values, count, threads, [](uint32_t bits) { return static_cast<int32_t>(bits); });
        const uint32_t magnitude = find_rank(counts, rank);
        if (noise != nullptr) *noise = noise_up_to<Bits>(magnitude, counts);
        return static_cast<Bits>(magnitude);
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

template <typename Bits>
ErrorSums sum_sparse_errors(const Bits* first, const Bits* kept, const uint8_t* mask, int64_t count, int threads) {
    const std::vector<int64_t> offsets = piece_offsets(mask, count, threads);
    return sum_errors_of(first, count, threads, [&](int64_t begin, int64_t end, std::vector<Bits>& decoded) {
        const size_t piece = static_cast<size_t>(begin / kGrain);
        decoded.resize(static_cast<size_t>(kGrain));
        kernels_for<Bits>(kernels()).expand(kept + offsets[piece], offsets[piece + 1] - offsets[piece],
                                            mask + begin / 8, end - begin, decoded.data());
        return static_cast<const Bits*>(decoded.data());
    });
}

template ErrorSums sum_sparse_errors(const uint16_t*, const uint16_t*, const uint8_t*, int64_t, int);
template ErrorSums sum_sparse_errors(const BFloat16Bits*, const BFloat16Bits*, const uint8_t*, int64_t, int);
template ErrorSums sum_sparse_errors(const uint32_t*, const uint32_t*, const uint8_t*, int64_t, int);
template uint16_t magnitude_of_rank(const uint16_t*, int64_t, int64_t, int, Noise*);
template BFloat16Bits magnitude_of_rank(const BFloat16Bits*, int64_t, int64_t, int, Noise*);
template uint32_t magnitude_of_rank(const uint32_t*, int64_t, int64_t, int, Noise*);
template int64_t magnitude_mask(const uint16_t*, int64_t, uint16_t, int, uint8_t*);
template int64_t magnitude_mask(const BFloat16Bits*, int64_t, BFloat16Bits, int, uint8_t*);
template int64_t magnitude_mask(const uint32_t*, int64_t, uint32_t, int, uint8_t*);
template void encode_sparse(const uint16_t*, int64_t, const uint8_t*, int, uint16_t*);
template void encode_sparse(const BFloat16Bits*, int64_t, const uint8_t*, int, BFloat16Bits*);
template void encode_sparse(const uint32_t*, int64_t, const uint8_t*, int, uint32_t*);
template void decode_sparse(const uint16_t*, const uint8_t*, int64_t, int, uint16_t*);
template void decode_sparse(const BFloat16Bits*, const uint8_t*, int64_t, int, BFloat16Bits*);
template void decode_sparse(const uint32_t*, const uint8_t*, int64_t, int, uint32_t*);

}  // namespace corepress
