#include "algo/soft_kmeans/nearest.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/half.h"
#include "core/parallel.h"
#include "core/stop.h"
#include "core/workspace.h"
#include "dispatch.h"

namespace corepress {
namespace {

constexpr int64_t kMostCuts = 256;  // codes of kernels have a byte
constexpr int64_t kVectors = 4096;

// Where the next entry is as near as this one.
double middle_of(const RulingEntry& entry, const RulingEntry& next) {
    return (entry.value + next.value) / 2 - (next.less - entry.less) / (2 * (next.value - entry.value));
}

// The largest key of a value that has the entry rather than the next.
template <typename Bits>
typename Format<Bits>::Key cut_after(const RulingEntry& entry, const RulingEntry& next) {
    const double middle = middle_of(entry, next);
    const bool keeps_middle = entry.place < next.place;
    const auto stays = [&](int64_t key) {
        const double value = value_of_key<Bits>(key);
        return value < middle || (value == middle && keeps_middle);
    };
    constexpr int64_t kLargest = Format<Bits>::kInfinity - 1;
    int64_t key = key_from_bits(bits_from_double<Bits>(middle));
    key = std::min(std::max(key, -kLargest - 1), kLargest);
    while (!stays(key) && key > -kLargest - 2) --key;
    while (key < kLargest && stays(key + 1)) ++key;
    return static_cast<typename Format<Bits>::Key>(key);
}

template <typename Bits>
void assign_numbers(const SoftGroup<Bits>& group, const double* centroids, double threshold, int threads,
                    uint16_t* codes, Bits* results) {
    using Key = typename Format<Bits>::Key;
    const std::vector<RulingEntry> ruling = ruling_entries(centroids, group.entries, threshold);
    std::size_t size = 2;  // a power of two
    while (size < ruling.size()) size *= 2;
    std::vector<Key> cuts(size, std::numeric_limits<Key>::max());
    std::vector<Bits> values(size);
    for (std::size_t i = 0; i < size; ++i) {
        const RulingEntry& entry = ruling[std::min(i, ruling.size() - 1)];
        values[i] = Format<Bits>::from_float(static_cast<float>(entry.value));
        if (i + 1 < ruling.size()) cuts[i] = cut_after<Bits>(entry, ruling[i + 1]);
    }
    WorkspacePool<std::vector<uint8_t>> rooms;
    parallel_pieces(group.count, kGrain, threads, [&](int64_t begin, int64_t end) {
        check_stop();
        const auto& table = kernels_for<Bits>(kernels());
        auto room = rooms.borrow();
        room->resize(static_cast<std::size_t>(kGrain));
        const auto assign =
            size > 64 || (size > 16 && end - begin < 64) ? table.assign_by_search : table.assign_by_cuts;
        assign(group.values + begin, end - begin, cuts.data(), static_cast<int>(size - 1), room->data());
        if (results != nullptr) {
            table.look_up(room->data(), end - begin, values.data(), static_cast<int>(size), results + begin);
        }
        if (codes == nullptr) return;
        for (int64_t i = begin; i < end; ++i) {
            codes[i] = static_cast<uint16_t>(ruling[(*room)[static_cast<std::size_t>(i - begin)]].place);
        }
    });
}

struct VectorRoom {
    std::vector<float> planes, distances;
    std::vector<uint16_t> codes;
};

// A threshold is one more component: nothing in vectors, and its root in all entries but the first.
template <typename Bits>
void assign_vectors(const SoftGroup<Bits>& group, const double* centroids, double threshold, int threads,
                    uint16_t* codes, Bits* results) {
    const int64_t length = group.length, width = length + (threshold == 0 ? 0 : 1);
    std::vector<float> entries;
    std::vector<Bits> values;
    for (int64_t j = 0; j < group.entries; ++j) {
        for (int64_t d = 0; d < length; ++d) {
            entries.push_back(static_cast<float>(centroids[j * length + d]));
            values.push_back(Format<Bits>::from_float(entries.back()));
        }
        if (threshold == 0) continue;
        const bool is_far = (j == 0) == (threshold < 0);
        entries.push_back(is_far ? static_cast<float>(std::sqrt(std::fabs(threshold))) : 0);
    }
    WorkspacePool<VectorRoom> rooms;
    parallel_pieces(group.count, kVectors, threads, [&](int64_t begin, int64_t end) {
        check_stop();
        auto room = rooms.borrow();
        room->planes.resize(static_cast<std::size_t>(width * kVectors));
        room->distances.resize(static_cast<std::size_t>(kVectors));
        room->codes.resize(static_cast<std::size_t>(kVectors));
        kernels_for<Bits>(kernels()).load_vectors(group.values, 1, length, begin, end, 1.0f, room->planes.data(),
                                                  kVectors);
        kernels().nearest_codes(room->planes.data(), nullptr, kVectors, width, end - begin, entries.data(),
                                group.entries, room->codes.data(), room->distances.data());
        for (int64_t i = begin; i < end; ++i) {
            const int64_t code = room->codes[static_cast<std::size_t>(i - begin)];
            if (codes != nullptr) codes[i] = static_cast<uint16_t>(code);
            if (results != nullptr) std::copy_n(values.data() + code * length, length, results + i * length);
        }
    });
}

}  // namespace

// Squared distances are parabolas of one shape, so that differences of them are lines: those that are least somewhere
// are the hull of these.
std::vector<RulingEntry> ruling_entries(const double* centroids, int64_t count, double threshold) {
    std::vector<RulingEntry> entries(static_cast<std::size_t>(count)), ruling;
    for (int64_t j = 0; j < count; ++j) {
        entries[static_cast<std::size_t>(j)] = {centroids[j], j == 0 ? threshold : 0, j};
    }
    std::sort(entries.begin(), entries.end(), [](const RulingEntry& a, const RulingEntry& b) {
        if (a.value != b.value) return a.value < b.value;
        return a.less != b.less ? a.less > b.less : a.place < b.place;
    });
    for (const RulingEntry& entry : entries) {
        if (!ruling.empty() && ruling.back().value == entry.value) continue;
        while (ruling.size() > 1) {
            const RulingEntry &last = ruling.back(), &before = ruling[ruling.size() - 2];
            if (middle_of(before, last) < middle_of(last, entry)) break;
            ruling.pop_back();
        }
        ruling.push_back(entry);
    }
    return ruling;
}

template <typename Bits>
void assign_nearest(const SoftGroup<Bits>& group, const double* centroids, double threshold, int threads,
                    uint16_t* codes, Bits* results) {
    const bool finite = std::all_of(centroids, centroids + group.entries * group.length,
                                    [](double entry) { return entry - entry == 0; });
    if (group.length == 1 && group.entries <= kMostCuts && finite) {
        assign_numbers(group, centroids, threshold, threads, codes, results);
    } else {
        assign_vectors(group, centroids, threshold, threads, codes, results);
    }
}

template void assign_nearest(const SoftGroup<uint16_t>&, const double*, double, int, uint16_t*, uint16_t*);
template void assign_nearest(const SoftGroup<BFloat16Bits>&, const double*, double, int, uint16_t*, BFloat16Bits*);
template void assign_nearest(const SoftGroup<uint32_t>&, const double*, double, int, uint16_t*, uint32_t*);

}  // namespace corepress
