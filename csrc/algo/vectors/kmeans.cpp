#include "algo/vectors/kmeans.h"

#include <algorithm>
#include <limits>

#include "core/parallel.h"
#include "core/stop.h"

namespace corepress {
namespace {

// Memory for the sums of pieces.
constexpr int64_t kMostSums = int64_t{1} << 20;

constexpr int64_t kFewPerEntry = 32;

// Adds vectors whose components have weights to the sums of their entries: [kMemberTurns, k, 2, length].
void add_weighted_members(const VectorPlanes& planes, int64_t count, const uint16_t* codes, int64_t k, int64_t length,
                          double* sums) {
    for (int64_t i = 0; i < count; ++i) {
        const double share = planes.shares == nullptr ? 1.0 : static_cast<double>(planes.shares[i]);
        double* const sum = sums + (i % kMemberTurns * k + codes[i]) * 2 * length;
        for (int64_t c = 0; c < length; ++c) {
            const double weight = share * static_cast<double>(planes.weights[c * planes.stride + i]);
            sum[c] += weight * static_cast<double>(planes.planes[c * planes.stride + i]);
            sum[length + c] += weight;
        }
    }
}

}  // namespace

template <typename Bits>
void VectorKmeans::fit(const VectorGroup<Bits>& group, int64_t k, int threads) {
    k_ = k;
    length_ = group.length();
    const int64_t room = std::max(8 * k, (int64_t{1} << 22) / length_);
    const int64_t first = std::min(std::max<int64_t>(4096, 64 * k), room);
    const bool pairs = length_ == 2;
    const int64_t per_entry = pairs ? std::clamp<int64_t>(group.size() / (4 * k), 1024, 2048) : k > 64 ? 1024 : 2048;
    sample_.draw(group, std::min(std::max<int64_t>(65536, per_entry * k), room), first, threads);
    const int starts = k <= 16 ? 4 : k <= 64 ? 2 : 1;
    entries_.assign(static_cast<size_t>(k_ * length_), 0.0f);
    const auto start_once = [&] {
        if (starts == 1) start(sample_.first_size(), 0);
    };
    if (!group.weighted() && VectorEntries::worth_sorting(k, length_)) {
        sample_.sort(threads, start_once);  // a start is serial
    } else {
        start_once();
    }
    const double finally = pairs ? 4e-4 : k > 64 ? 6e-4 : 5e-4;
    constexpr double roughly = 2e-3;
    if (starts > 1) {
        start_best(starts, roughly, threads);
    } else {
        descend(sample_.first_size(), roughly, threads);
    }
    for (int64_t count = sample_.first_size(); count < sample_.size();) {
        count = sample_.next_size(count);
        descend(count, count < sample_.size() ? roughly : finally, threads);
    }
    has_momentum_ = false;
    if (group.size() <= kFewPerEntry * k && group.size() <= sample_.size()) return start_plainly(threads);
    // Means of all vectors are a little better than those of the sample, if these cost less than the rounds before.
    constexpr int64_t kMostSamples = 4;
    if (group.size() <= kMostSamples * sample_.size()) {
        descend_once(group, group.size(), true, threads);
    } else {
        descend_once(sample_, sample_.size(), false, threads);
    }
}

// The sample is all vectors.
void VectorKmeans::start_plainly(int threads) {
    // Runs are cheap where there are few vectors, and differ most there.
    const int64_t per_entry = sample_.size() / k_;
    const int starts = per_entry < 4 ? 8 : per_entry < 12 ? 2 : 1;
    double least = settle(threads);
    best_entries_ = entries_;
    for (int attempt = 0; attempt < starts; ++attempt) {
        start(sample_.size(), (uint64_t{1} << 48) + (static_cast<uint64_t>(attempt) << 32));
        const double error = settle(threads);
        if (!(error < least)) continue;
        least = error;
        best_entries_ = entries_;
    }
    entries_.swap(best_entries_);
}

// Plain rounds until nothing improves and every entry is nearest to some vector; returns the last error.
double VectorKmeans::settle(int threads) {
    constexpr int kMostRounds = 300;
    const int64_t most_rounds = kMostRounds + k_;  // a round may give one entry vectors again
    steps_.assign(entries_.size(), 0.0f);
    double before = std::numeric_limits<double>::infinity();
    for (int64_t round = 0; round < most_rounds; ++round) {
        last_entries_ = entries_;
        const double error = descend_once(sample_, sample_.size(), false, threads);
        if (!relocated_ && !(error < before)) break;
        before = error;
    }
    entries_.swap(last_entries_);
    return before;
}

void VectorKmeans::start_best(int starts, double least_gain, int threads) {
    double least = std::numeric_limits<double>::infinity();
    for (int attempt = 0; attempt < starts; ++attempt) {
        start(sample_.first_size(), static_cast<uint64_t>(attempt) << 32);
        const double error = descend(sample_.first_size(), least_gain, threads);
        if (attempt == 0 || error < least) {  // the error may be NaN
            least = error;
            best_entries_ = entries_;
        }
    }
    entries_.swap(best_entries_);
}

// Greedy k-means++ (Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", 2007): each entry is a
// vector drawn by its squared distance from those before, the best of a few.
void VectorKmeans::start(int64_t count, uint64_t counter) {
    int64_t bits = 0;
    while ((int64_t{1} << bits) < k_) ++bits;
    const int64_t trials = k_ > 1024 ? 1 : k_ > 64 && length_ > 2 ? 3 : 2 + 7 * bits / 10;  // 2 + ln k
    const int64_t padded = (count + 31) / 32 * 32, tiles = (padded + kVectorTile - 1) / kVectorTile;
    for (auto* const distances : {&nearest_, &trial_, &best_trial_}) distances->resize(static_cast<size_t>(padded));
    for (auto* const sums : {&tile_sums_, &trial_sums_, &best_sums_}) sums->resize(static_cast<size_t>(tiles));
    // Beyond the vectors there are zeros, which must never be drawn.
    std::fill(nearest_.begin(), nearest_.begin() + count, std::numeric_limits<float>::max());
    std::fill(nearest_.begin() + count, nearest_.end(), 0.0f);
    choose(0, static_cast<int64_t>(uniform_of(counter++) * static_cast<double>(count)), padded);
    nearest_.swap(best_trial_);
    tile_sums_.swap(best_sums_);
    for (int64_t entry = 1; entry < k_; ++entry) {
        check_stop();
        double total = 0;
        for (const double sum : tile_sums_) total += sum;
        double least = std::numeric_limits<double>::infinity();
        int64_t best = 0;
        for (int64_t trial = 0; trial < trials; ++trial) {
            const int64_t index = drawn(uniform_of(counter++) * total, count);
            trial_.swap(best_trial_);
            trial_sums_.swap(best_sums_);
            choose(entry, index, padded);
            double sum = 0;
            for (const double part : best_sums_) sum += part;
            if (sum < least) {
                least = sum;
                best = index;
            } else {
                trial_.swap(best_trial_);
                trial_sums_.swap(best_sums_);
            }
        }
        const VectorPlanes planes = sample_.at(best);
        for (int64_t c = 0; c < length_; ++c) {
            entries_[static_cast<size_t>(entry * length_ + c)] = planes.planes[c * planes.stride];
        }
        nearest_.swap(best_trial_);
        tile_sums_.swap(best_sums_);
    }
}

// Makes a vector an entry, and best_trial_ the distances from the nearest entry.
void VectorKmeans::choose(int64_t entry, int64_t index, int64_t padded) {
    const VectorPlanes chosen = sample_.at(index), all = sample_.at(0);
    float* const centre = entries_.data() + entry * length_;
    for (int64_t c = 0; c < length_; ++c) centre[c] = chosen.planes[c * chosen.stride];
    kernels().approach(all.planes, all.weights, all.stride, length_, padded, all.shares, centre, nearest_.data(),
                       best_trial_.data(), best_sums_.data());
}

// The vector at a place on the running sum of nearest_.
int64_t VectorKmeans::drawn(double place, int64_t count) const {
    size_t tile = 0;
    while (tile + 1 < tile_sums_.size() && place >= tile_sums_[tile]) place -= tile_sums_[tile++];
    const int64_t begin = static_cast<int64_t>(tile) * kVectorTile, end = std::min(begin + kVectorTile, count);
    int64_t last = begin;
    for (int64_t i = begin; i < end; ++i) {
        const double distance = static_cast<double>(nearest_[static_cast<size_t>(i)]);
        if (distance > 0) last = i;
        if (place < distance) return i;
        place -= distance;
    }
    return last;
}

// Lloyd's rounds with momentum, which takes several times fewer of them: steps go beyond the means and keep most of the
// step before, which a rise of the error stops. Ends when the error has hardly fallen, for longer vectors twice, since
// momentum may hold it up for a round. Returns the last error.
double VectorKmeans::descend(int64_t count, double least_gain, int threads) {
    constexpr int kMostRounds = 60;
    const int enough = length_ == 2 ? 1 : 2;
    double before = std::numeric_limits<double>::infinity();
    steps_.assign(entries_.size(), 0.0f);
    has_momentum_ = true;
    for (int round = 0, quiet = 0; round < kMostRounds && quiet < enough; ++round) {
        const double error = descend_once(sample_, count, false, threads);
        quiet = error <= before && !relocated_ && before - error <= least_gain * error ? quiet + 1 : 0;
        if (error > before) std::fill(steps_.begin(), steps_.end(), 0.0f);
        before = error;
    }
    return before;
}

// Moves entries to the means of the vectors nearest to them, or beyond. Returns the error with the entries as they
// were; moving them `blindly` takes less time, and entries that are nearest to nothing stay where they are.
template <typename Source>
double VectorKmeans::descend_once(const Source& source, int64_t count, bool blindly, int threads) {
    const bool weighted = sample_.weighted();
    const int64_t width = k_ * (weighted ? 2 * length_ : length_ + 1);
    const int64_t most_pieces = std::min<int64_t>(64, std::max<int64_t>(1, kMostSums / (kMemberTurns * width)));
    const int64_t tiles = (count + kVectorTile - 1) / kVectorTile;
    const int64_t grain = std::max<int64_t>(4, (tiles + most_pieces - 1) / most_pieces) * kVectorTile;
    const int64_t pieces = (count + grain - 1) / grain;
    sums_.resize(static_cast<size_t>(pieces * kMemberTurns * width));
    pieces_.assign(static_cast<size_t>(pieces), {});
    const bool large = count * k_ * length_ > (int64_t{1} << 20);
    table_.set(entries_.data(), k_, length_);
    parallel_pieces(count, grain, large ? threads : 1, [&](int64_t first, int64_t end) {
        Piece& piece = pieces_[static_cast<size_t>(first / grain)];
        double* const sums = sums_.data() + first / grain * kMemberTurns * width;
        std::fill(sums, sums + kMemberTurns * width, 0.0);
        auto tile = tiles_.borrow();
        tile->make_room(length_);
        DistanceSum distances;
        for (int64_t begin = first; begin < end; begin += kVectorTile) {
            check_stop();
            const int64_t size = std::min(kVectorTile, end - begin);
            const VectorPlanes planes = source.load(begin, size, *tile);
            blindly ? table_.assign_codes(planes, size, *tile) : table_.assign(planes, size, *tile);
            if (weighted) {
                add_weighted_members(planes, size, tile->codes.data(), k_, length_, sums);
            } else {
                kernels().add_members(planes.planes, planes.stride, length_, size, planes.shares, tile->codes.data(),
                                      k_, sums);
            }
            if (blindly) continue;
            kernels().add_distances(tile->distances.data(), planes.shares, size, &distances);
            if (distances.largest <= piece.farthest) continue;
            piece.farthest = distances.largest;
            for (int64_t i = 0; i < size; ++i) {
                const double share = planes.shares == nullptr ? 1.0 : static_cast<double>(planes.shares[i]);
                if (share * static_cast<double>(tile->distances[static_cast<size_t>(i)]) != piece.farthest) continue;
                piece.farthest_index = begin + i;
                break;
            }
        }
        piece.error = distances.total;
        for (int64_t turn = 1; turn < kMemberTurns; ++turn) {
            for (int64_t i = 0; i < width; ++i) sums[i] += sums[turn * width + i];
        }
    });
    double error = 0;
    for (const Piece& piece : pieces_) error += piece.error;
    update_entries(pieces, width);
    return error;
}

// An entry that is nearest to nothing moves to the vector of a piece that is farthest from its own.
void VectorKmeans::update_entries(int64_t pieces, int64_t width) {
    const bool weighted = sample_.weighted();
    double* const total = sums_.data();
    for (int64_t piece = 1; piece < pieces; ++piece) {
        const double* const sums = total + piece * kMemberTurns * width;
        for (int64_t i = 0; i < width; ++i) total[i] += sums[i];
    }
    std::stable_sort(pieces_.begin(), pieces_.end(),
                     [](const Piece& a, const Piece& b) { return a.farthest > b.farthest; });
    const bool pairs = length_ == 2;
    const double reach = !has_momentum_ ? 1.0 : pairs ? 1.8 : 2.5, kept = !has_momentum_ ? 0.0 : pairs ? 0.9 : 0.7;
    size_t next = 0;
    relocated_ = false;
    for (int64_t entry = 0; entry < k_; ++entry) {
        const double* const sum = total + entry * (width / k_);
        float* const centre = entries_.data() + entry * length_;
        float* const steps = steps_.data() + entry * length_;
        const double* const weights = sum + length_;
        const auto weight = [&](int64_t c) { return weighted ? weights[c] : weights[0]; };
        bool empty = true;
        for (int64_t c = 0; c < length_; ++c) {
            if (!(weight(c) > 0)) continue;
            const double to_mean = sum[c] / weight(c) - static_cast<double>(centre[c]);
            steps[c] = static_cast<float>(reach * to_mean + kept * static_cast<double>(steps[c]));
            centre[c] += steps[c];
            empty = false;
        }
        if (!empty || next >= pieces_.size() || !(pieces_[next].farthest > 0)) continue;
        auto tile = tiles_.borrow();
        tile->make_room(length_);
        const VectorPlanes planes = sample_.load(pieces_[next++].farthest_index, 1, *tile);
        for (int64_t c = 0; c < length_; ++c) {
            centre[c] = planes.planes[c * planes.stride];
            steps[c] = 0;
        }
        relocated_ = true;
    }
}

template void VectorKmeans::fit(const VectorGroup<uint16_t>&, int64_t, int);
template void VectorKmeans::fit(const VectorGroup<BFloat16Bits>&, int64_t, int);
template void VectorKmeans::fit(const VectorGroup<uint32_t>&, int64_t, int);

}  // namespace corepress
