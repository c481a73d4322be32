#include "algo/prune/prune.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <optional>
#include <vector>

#include "algo/prune/mask_pieces.h"
#include "algo/prune/slots.h"
#include "core/half.h"
#include "core/parallel.h"
#include "core/workspace.h"
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

// What is known of a magnitude of this rank among so many: how many equal it, and its rank among these. Where values
// changed meanwhile these say little, but never that more are above than there are.
template <typename Bits>
Magnitude<Bits> magnitude_found(uint32_t bits, int64_t count, int64_t rank, int64_t equal, int64_t within) {
    const int64_t above = count - 1 - rank - (equal - 1 - within);
    return {static_cast<Bits>(bits), std::clamp<int64_t>(above, 0, count)};
}

constexpr int64_t kMany = int64_t{1} << 20;  // values, of which a sample says enough

// How far a sample's rank may be off at quantile `part`: three standard deviations, plus 16 for the ends.
int64_t margin_of(double part, int64_t samples) {
    return static_cast<int64_t>(3 * std::sqrt(part * (1 - part) * static_cast<double>(samples))) + 16;
}

// Calls visit with so many of the magnitudes.
template <typename Bits, typename Visit>
void visit_sample(const Bits* values, int64_t count, int64_t samples, const Visit& visit) {
    const int64_t stride = count / samples;
    uint32_t place = 0;  // scattered, since a regular step could meet one column only
    for (int64_t i = 0; i < samples; ++i, place += 2654435769u) {
        const int64_t within = static_cast<int64_t>(uint64_t{place} * static_cast<uint64_t>(stride) >> 32);
        visit(static_cast<Bits>(values[i * stride + within] & Format<Bits>::kMagnitude));
    }
}

// The magnitude of a rank among many 16-bit values. A sample tells two bounds that it most likely lies between;
// counting the values below and only those between, a few percent, takes half the time of counting all. No result where
// the sample misled.
template <typename Bits>
std::optional<Magnitude<Bits>> select_near_sample(const Bits* values, int64_t count, int64_t rank, int threads) {
    constexpr int64_t kSample = int64_t{1} << 14;
    constexpr Bits kMagnitude = Format<Bits>::kMagnitude;
    Counts sample(kPatterns / 2, 0);
    visit_sample(values, count, kSample, [&](Bits magnitude) { ++sample[magnitude]; });
    const auto of_sample = [&](int64_t at) { return static_cast<Bits>(find_rank(sample, at)); };
    const double part = static_cast<double>(rank) / static_cast<double>(count);
    const int64_t near = static_cast<int64_t>(part * kSample), margin = margin_of(part, kSample);
    const Bits first = near < margin ? Bits{0} : of_sample(near - margin);
    const Bits last = near + margin < kSample ? of_sample(near + margin) : kMagnitude;
    constexpr int64_t kTile = int64_t{1} << 12;
    struct Counter {
        Counts slots;
        int64_t below = 0;
        std::array<Bits, kTile + 3> taken;
    };
    const size_t slots = static_cast<size_t>(last - first) + 1;
    WorkspacePool<Counter> counters;
    parallel_pieces(count, kGrain, threads, [&](int64_t begin, int64_t end) {
        const auto& loops = kernels_for<Bits>(kernels());
        auto counter = counters.borrow();
        counter->slots.resize(slots + 1, 0);
        for (; begin < end; begin += kTile) {
            Bits* const taken = counter->taken.data();
            const int64_t found =
                loops.take_between(values + begin, std::min(kTile, end - begin), first, last, taken, &counter->below);
            for (int64_t i = 0; i < found; ++i) {
                // One that changed after it was looked at may belong to no slot.
                const auto slot = static_cast<size_t>((taken[i] & kMagnitude) - first);
                ++counter->slots[std::min(slot, slots)];
            }
        }
    });
    Counts total(slots, 0);
    int64_t within = rank, between = 0;
    for (const auto& counter : counters.objects()) {
        within -= counter->below;
        for (size_t i = 0; i < slots; ++i) {
            total[i] += counter->slots[i];
            between += counter->slots[i];
        }
    }
    if (within < 0 || within >= between) return std::nullopt;
    const uint32_t slot = find_rank(total, within);
    return magnitude_found<Bits>(first + slot, count, rank, total[slot], within);
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

std::vector<int64_t> piece_offsets(const uint8_t* mask, int64_t count, int64_t most, int threads) {
    std::vector<int64_t> offsets(static_cast<size_t>((count + kGrain - 1) / kGrain) + 1, 0);
    parallel_pieces(count, kGrain, threads, [&](int64_t begin, int64_t end) {
        offsets[static_cast<size_t>(begin / kGrain) + 1] = kernels().count_bits(mask + begin / 8, end - begin);
    });
    for (size_t i = 1; i < offsets.size(); ++i) offsets[i] = std::min(offsets[i] + offsets[i - 1], most);
    return offsets;
}

template <typename Bits>
Magnitude<Bits> magnitude_of_rank(const Bits* values, int64_t count, int64_t rank, int threads, Noise* noise) {
    int64_t within = rank;  // becomes the rank within a slot
    if constexpr (sizeof(Bits) == 2) {
        if (count >= kMany && noise == nullptr) {
            if (const auto selected = select_near_sample(values, count, rank, threads)) return *selected;
        }
        const auto counts =
            count_magnitudes(values, count, threads, [](uint32_t bits) { return static_cast<int32_t>(bits); });
        const uint32_t magnitude = find_rank(counts, within);
        if (noise != nullptr) *noise = noise_up_to<Bits>(magnitude, counts);
        return magnitude_found<Bits>(magnitude, count, rank, counts[magnitude], within);
    } else {
        const auto upper =
            count_magnitudes(values, count, threads, [](uint32_t bits) { return static_cast<int32_t>(bits >> 16); });
        const uint32_t high = find_rank(upper, within);
        const auto lower = count_magnitudes(values, count, threads, [high](uint32_t bits) {
            return bits >> 16 == high ? static_cast<int32_t>(bits & 0xffffu) : -1;
        });
        const uint32_t low = find_rank(lower, within);
        return magnitude_found<Bits>(high << 16 | low, count, rank, lower[low], within);
    }
}

template <typename Bits>
int64_t most_likely_above(const Bits* values, int64_t count, Bits threshold) {
    constexpr int64_t kSample = int64_t{1} << 12;
    if (count < kMany) return count;
    int64_t above = 0;
    visit_sample(values, count, kSample, [&](Bits magnitude) { above += magnitude > threshold ? 1 : 0; });
    const int64_t most = above + margin_of(static_cast<double>(above) / kSample, kSample);
    return std::min(count, (count + kSample - 1) / kSample * most);
}

template <typename Bits>
Pruned prune_by_magnitude(const Bits* values, int64_t count, Bits threshold, int threads, uint8_t* mask,
                          Span<Bits> kept) {
    return prune_pieces(values, count, kGrain, threads, mask, kept,
                        [=](const Bits* piece, int64_t length, uint8_t* mask_of_piece, Bits* largest) {
                            return kernels_for<Bits>(kernels()).mask_above(piece, length, threshold, mask_of_piece,
                                                                           largest);
                        });
}

template <typename Bits>
void encode_sparse(const Bits* values, int64_t count, const uint8_t* mask, int threads, Span<Bits> kept) {
    const std::vector<int64_t> offsets = piece_offsets(mask, count, kept.size(), threads);
    parallel_pieces(count, kGrain, threads, [&](int64_t begin, int64_t end) {
        compact_piece(values, count, begin, end, threads, mask, part_of(kept, offsets, begin));
    });
}

template <typename Bits>
void decode_sparse(Span<const Bits> kept, const uint8_t* mask, int64_t count, int threads, Bits* values) {
    const std::vector<int64_t> offsets = piece_offsets(mask, count, kept.size(), threads);
    parallel_pieces(count, kGrain, threads, [&](int64_t begin, int64_t end) {
        const Span<const Bits> part = part_of(kept, offsets, begin);
        kernels_for<Bits>(kernels()).expand(part.data(), part.size(), mask + begin / 8, end - begin, values + begin);
    });
}

template <typename Bits>
ErrorSums sum_sparse_errors(const Bits* first, Span<const Bits> kept, const uint8_t* mask, int64_t count, int threads) {
    const std::vector<int64_t> offsets = piece_offsets(mask, count, kept.size(), threads);
    return sum_errors_of(first, count, threads, [&](int64_t begin, int64_t end, std::vector<Bits>& decoded) {
        const Span<const Bits> part = part_of(kept, offsets, begin);
        decoded.resize(static_cast<size_t>(kGrain));
        kernels_for<Bits>(kernels()).expand(part.data(), part.size(), mask + begin / 8, end - begin, decoded.data());
        return static_cast<const Bits*>(decoded.data());
    });
}

template ErrorSums sum_sparse_errors(const uint16_t*, Span<const uint16_t>, const uint8_t*, int64_t, int);
template ErrorSums sum_sparse_errors(const BFloat16Bits*, Span<const BFloat16Bits>, const uint8_t*, int64_t, int);
template ErrorSums sum_sparse_errors(const uint32_t*, Span<const uint32_t>, const uint8_t*, int64_t, int);
template Magnitude<uint16_t> magnitude_of_rank(const uint16_t*, int64_t, int64_t, int, Noise*);
template Magnitude<BFloat16Bits> magnitude_of_rank(const BFloat16Bits*, int64_t, int64_t, int, Noise*);
template Magnitude<uint32_t> magnitude_of_rank(const uint32_t*, int64_t, int64_t, int, Noise*);
template int64_t most_likely_above(const uint16_t*, int64_t, uint16_t);
template int64_t most_likely_above(const BFloat16Bits*, int64_t, BFloat16Bits);
template int64_t most_likely_above(const uint32_t*, int64_t, uint32_t);
template Pruned prune_by_magnitude(const uint16_t*, int64_t, uint16_t, int, uint8_t*, Span<uint16_t>);
template Pruned prune_by_magnitude(const BFloat16Bits*, int64_t, BFloat16Bits, int, uint8_t*, Span<BFloat16Bits>);
template Pruned prune_by_magnitude(const uint32_t*, int64_t, uint32_t, int, uint8_t*, Span<uint32_t>);
template void encode_sparse(const uint16_t*, int64_t, const uint8_t*, int, Span<uint16_t>);
template void encode_sparse(const BFloat16Bits*, int64_t, const uint8_t*, int, Span<BFloat16Bits>);
template void encode_sparse(const uint32_t*, int64_t, const uint8_t*, int, Span<uint32_t>);
template void decode_sparse(Span<const uint16_t>, const uint8_t*, int64_t, int, uint16_t*);
template void decode_sparse(Span<const BFloat16Bits>, const uint8_t*, int64_t, int, BFloat16Bits*);
template void decode_sparse(Span<const uint32_t>, const uint8_t*, int64_t, int, uint32_t*);

}  // namespace corepress
