#include "algo/vectors/vector_palettes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <type_traits>

#include "algo/common/measure.h"
#include "algo/vectors/kmeans.h"
#include "core/half.h"
#include "core/parallel.h"
#include "core/stop.h"
#include "core/workspace.h"

namespace corepress {
namespace {

template <typename Bits>
Bits without_sign_of_zero(Bits bits) {
    return (bits & Format<Bits>::kMagnitude) == 0 ? Bits{0} : bits;
}

// Squares of floats have half the range of exponents: where a group's largest magnitude is unusual, its values are
// taken times a power of two. Halves need none.
template <typename Bits>
float factor_of(const VectorSource<Bits>& source, int64_t group) {
    using Key = typename Format<Bits>::Key;
    if constexpr (std::is_same_v<Bits, uint16_t>) return 1;
    Key lowest = std::numeric_limits<Key>::max(), highest = std::numeric_limits<Key>::min();
    const GroupLayout& groups = source.layout.groups;
    const int64_t inner = source.layout.inner, length = source.layout.length;
    const int64_t blocks = groups.run / inner;  // a group's run is whole blocks
    for (int64_t outer = 0; outer < groups.outer; ++outer) {
        const Bits* const values = source.values + groups.offset(outer, group) * length;
        kernels_for<Bits>(kernels()).run_key_ranges(values, 1, blocks * inner * length, &lowest, &highest);
    }
    const double largest = std::max(-value_of_key<Bits>(lowest), value_of_key<Bits>(highest));
    if (!(largest > 0 && std::isfinite(largest)) || (largest >= 0x1p-20 && largest < 0x1p40)) return 1;
    return static_cast<float>(std::ldexp(1.0, std::clamp(-std::ilogb(largest), -126, 127)));
}

// The distinct vectors of a group, in no order, while they are no more than `most`.
template <typename Bits>
class DistinctVectors {
public:
    // False if there are more.
    bool collect(const VectorSource<Bits>& source, int64_t group, int64_t most) {
        const int64_t length = source.layout.length, inner = source.layout.inner;
        const GroupLayout& groups = source.layout.groups;
        size_t slots = 16;
        while (slots < static_cast<size_t>(2 * most)) slots *= 2;
        slots_.assign(slots, -1);
        vectors_.clear();
        vector_.resize(static_cast<size_t>(length));
        for (int64_t outer = 0; outer < groups.outer; ++outer) {
            const int64_t begin = groups.offset(outer, group);
            for (int64_t i = begin; i < begin + groups.run; ++i) {
                if (i % kGrain == 0) check_stop();
                const Bits* const from = source.values + (i / inner * length) * inner + i % inner;
                for (int64_t c = 0; c < length; ++c) {
                    vector_[static_cast<size_t>(c)] = without_sign_of_zero(from[c * inner]);
                }
                if (!add(most)) return false;
            }
        }
        return true;
    }
    const std::vector<Bits>& vectors() const { return vectors_; }

private:
    bool add(int64_t most) {
        uint64_t hash = 0;
        for (const Bits component : vector_) hash = hash_of(hash ^ component);
        const size_t mask = slots_.size() - 1, length = vector_.size();
        size_t slot = static_cast<size_t>(hash) & mask;
        while (slots_[slot] >= 0) {
            const Bits* const known = vectors_.data() + static_cast<size_t>(slots_[slot]) * length;
            if (std::equal(vector_.begin(), vector_.end(), known)) return true;
            slot = (slot + 1) & mask;
        }
        const auto count = static_cast<int64_t>(vectors_.size() / length);
        if (count == most) return false;
        slots_[slot] = count;
        vectors_.insert(vectors_.end(), vector_.begin(), vector_.end());
        return true;
    }

    std::vector<int64_t> slots_;
    std::vector<Bits> vectors_, vector_;
};

// Numbers in ascending order, NaN last: where vectors are no longer finite, an order all the same.
struct NumberLess {
    bool operator()(float a, float b) const { return a < b || (a == a && b != b); }
};

// Writes vectors in ascending order, each once, and repeats the last up to `entries`.
template <typename T, typename Less>
void write_ascending(const std::vector<T>& vectors, int64_t length, int64_t entries, const Less& less, T* table) {
    std::vector<int64_t> order(vectors.size() / static_cast<size_t>(length));
    std::iota(order.begin(), order.end(), int64_t{0});
    const auto vector = [&](int64_t index) { return vectors.data() + index * length; };
    const auto before = [&](int64_t a, int64_t b) {
        return std::lexicographical_compare(vector(a), vector(a) + length, vector(b), vector(b) + length, less);
    };
    std::sort(order.begin(), order.end(), before);
    const auto equal = [&](int64_t a, int64_t b) { return std::equal(vector(a), vector(a) + length, vector(b)); };
    order.erase(std::unique(order.begin(), order.end(), equal), order.end());
    for (int64_t entry = 0; entry < entries; ++entry) {
        const int64_t index = order[std::min(static_cast<size_t>(entry), order.size() - 1)];
        std::copy(vector(index), vector(index) + length, table + entry * length);
    }
}

template <typename Bits>
struct TableFitter {
    DistinctVectors<Bits> distinct;
    VectorKmeans kmeans;
    std::vector<Bits> entries;

    void fit(const VectorSource<Bits>& source, int64_t index, int64_t entry_count, int threads, Bits* lut) {
        const auto less = [](Bits a, Bits b) { return key_from_bits(a) < key_from_bits(b); };
        const int64_t length = source.layout.length;
        if (distinct.collect(source, index, entry_count)) {
            write_ascending(distinct.vectors(), length, entry_count, less, lut);
            return;
        }
        const float factor = factor_of(source, index);
        kmeans.fit(VectorGroup<Bits>{source, index, factor}, entry_count, threads);
        entries.clear();
        for (const float entry : kmeans.entries()) {
            const double value = static_cast<double>(entry) / static_cast<double>(factor);
            entries.push_back(bits_from_double<Bits>(value));
        }
        write_ascending(entries, length, entry_count, less, lut);
    }
};

// Room for one tile's codes, and for the table of the group that the tile is in.
struct Coder {
    VectorTile tile;
    std::vector<float> table;
    int64_t group = -1;

    template <typename Bits>
    void use(const Bits* luts, int64_t size, int64_t which, float factor) {
        if (which == group) return;
        group = which;
        table.resize(static_cast<size_t>(size));
        for (int64_t i = 0; i < size; ++i) {
            table[static_cast<size_t>(i)] = Format<Bits>::to_float(luts[which * size + i]) * factor;
        }
    }
};

}  // namespace

template <typename Bits>
void fit_vector_tables(const VectorSource<Bits>& source, int entries, int threads, Bits* luts) {
    WorkspacePool<TableFitter<Bits>> fitters;
    const GroupLayout& groups = source.layout.groups;
    // Many small groups share the threads among them; few or large ones have all threads, in turn, and the memory too.
    constexpr int64_t kShared = int64_t{1} << 21;  // weights that are in work at a time
    const int64_t per_group = groups.group_size() * source.layout.length;
    const bool many = groups.groups >= 2 * static_cast<int64_t>(threads) && per_group * threads <= kShared;
    parallel_for(groups.groups, many ? threads : 1, [&](int64_t index) {
        fitters.borrow()->fit(source, index, entries, many ? 1 : threads,
                              luts + index * entries * source.layout.length);
    });
}

template <typename Bits>
void palettize_vectors(const VectorSource<Bits>& source, int nbits, const Bits* luts, int threads, uint8_t* packed) {
    const VectorLayout& layout = source.layout;
    const int64_t size = layout.length << nbits;
    if (layout.count() == 0) return;
    std::vector<float> factors(static_cast<size_t>(layout.groups.groups));
    parallel_for(layout.groups.groups, layout.count() < kGrain ? 1 : threads,
                 [&](int64_t group) { factors[static_cast<size_t>(group)] = factor_of(source, group); });
    const int64_t grain = kVectorTile * 16;
    parallel_pieces(
        layout.count(), grain, layout.count() * size < kGrain ? 1 : threads, [&](int64_t first, int64_t last) {
            Coder coder;
            uint8_t codes[kVectorTile];
            coder.tile.make_room(layout.length);
            for (int64_t begin = first; begin < last; begin += kVectorTile) {
                const int64_t end = std::min(begin + kVectorTile, last);
                for_each_run(layout.groups, begin, end, [&](int64_t group, int64_t offset, int64_t length) {
                    const float factor = factors[static_cast<size_t>(group)];
                    coder.use(luts, size, group, factor);
                    VectorTile& tile = coder.tile;
                    const VectorPlanes planes = source.load(offset, length, factor, tile);
                    kernels().nearest_codes(planes.planes, planes.weights, planes.stride, layout.length, length,
                                            coder.table.data(), int64_t{1} << nbits, tile.codes.data(),
                                            tile.distances.data());
                    for (int64_t i = 0; i < length; ++i) {
                        codes[offset - begin + i] = static_cast<uint8_t>(tile.codes[static_cast<size_t>(i)]);
                    }
                });
                kernels().pack(codes, end - begin, nbits, packed + begin * nbits / 8);
            }
        });
}

namespace {

// Calls body(group, vector, offset, blocks, count): vectors [vector, ...) of one group, `count` of each of `blocks`
// blocks, whose first components begin at `offset` of the tensor. Several blocks are always whole.
template <typename Body>
void for_each_part(const VectorBlocks& layout, int64_t begin, int64_t end, const Body& body) {
    const int64_t inner = layout.inner, size = inner * layout.length;
    const auto part_of = [&](int64_t group, int64_t vector, int64_t count) {
        for (const int64_t stop = vector + count; vector < stop;) {
            const int64_t block = vector / inner, within = vector - block * inner;
            const bool whole = within == 0 && stop - vector >= inner;
            const int64_t blocks = whole ? (stop - vector) / inner : 1;
            const int64_t part = whole ? inner : std::min(inner - within, stop - vector);
            body(group, vector, block * size + within, blocks, part);
            vector += blocks * part;
        }
    };
    walk(
        layout.groups, begin, end,
        [&](int64_t group, int64_t vector, int64_t runs, int64_t length) {
            for (int64_t run = 0; run < runs; ++run) part_of(group + run, vector + run * length, length);
        },
        [&](int64_t group, int64_t column, int64_t vector, int64_t rows, int64_t columns) {
            const int64_t run = layout.groups.run();
            for (int64_t row = 0; row < rows; ++row) {
                for (int64_t at = 0; at < columns;) {
                    const int64_t count = std::min(run - (column + at) % run, columns - at);
                    part_of(group + (column + at) / run, vector + row * columns + at, count);
                    at += count;
                }
            }
        });
}

constexpr int64_t kCodeTile = 4096;

// Calls body(codes, group, vector, offset, blocks, count) as above, with the codes of those vectors.
template <typename Body>
void for_each_coded_part(const uint8_t* packed, const VectorBlocks& layout, int nbits, int64_t begin, int64_t end,
                         const Body& body) {
    uint8_t codes[kCodeTile];
    for (int64_t tile = begin; tile < end; tile += kCodeTile) {
        const int64_t stop = std::min(tile + kCodeTile, end);
        kernels().unpack(packed + tile * nbits / 8, stop - tile, nbits, codes);
        for_each_part(layout, tile, stop,
                      [&](int64_t group, int64_t vector, int64_t offset, int64_t blocks, int64_t count) {
                          body(codes + (vector - tile), group, offset, blocks, count);
                      });
    }
}

}  // namespace

namespace {

// Decodes parts of a tensor: long runs of a component by a table of that component, which may fit registers; whole
// blocks of short runs into planes first.
template <typename Bits>
class VectorDecoder {
public:
    VectorDecoder(const Bits* luts, int nbits, int64_t length)
        : luts_(luts), entries_(int64_t{1} << nbits), length_(length) {}

    // codes: [blocks, count], at most kCodeTile; values: [blocks, length, inner], of which the first `count` of each
    // inner run are written.
    void decode(const uint8_t* codes, int64_t group, int64_t blocks, int64_t inner, int64_t count, Bits* values) {
        constexpr int64_t kLongRun = 64;
        const auto& value_kernels = kernels_for<Bits>(kernels());
        const auto entries = static_cast<int>(entries_);
        const bool whole = count == inner || count >= kLongRun;
        if (inner == 1 || !whole || blocks * count < std::max(entries_, kLongRun)) {
            return value_kernels.look_up_vectors(codes, blocks, inner, count, length_,
                                                 luts_ + group * entries_ * length_, entries, values);
        }
        use(group);
        if (count < kLongRun) {
            constexpr int64_t kStride = kCodeTile + kPadding;
            planes_.resize(static_cast<size_t>(length_ * kStride));
            for (int64_t c = 0; c < length_; ++c) {
                value_kernels.look_up(codes, blocks * count, table_.data() + c * entries_, entries,
                                      planes_.data() + c * kStride);
            }
            return value_kernels.join_planes(planes_.data(), kStride, blocks, inner, length_, values);
        }
        for (int64_t block = 0; block < blocks; ++block, codes += count, values += length_ * inner) {
            for (int64_t c = 0; c < length_; ++c) {
                value_kernels.look_up(codes, count, table_.data() + c * entries_, entries, values + c * inner);
            }
        }
    }

private:
    static constexpr int64_t kPadding = 32;

    void use(int64_t group) {
        if (group == group_) return;
        group_ = group;
        const Bits* const lut = luts_ + group * entries_ * length_;
        table_.resize(static_cast<size_t>(entries_ * length_));
        for (int64_t c = 0; c < length_; ++c) {
            for (int64_t j = 0; j < entries_; ++j) table_[static_cast<size_t>(c * entries_ + j)] = lut[j * length_ + c];
        }
    }

    const Bits* luts_;
    int64_t entries_, length_, group_ = -1;
    std::vector<Bits> table_, planes_;  // one plane per component
};

}  // namespace

template <typename Bits>
void depalettize_vectors(const uint8_t* packed, const VectorBlocks& layout, int nbits, const Bits* luts, int threads,
                         Bits* values) {
    parallel_pieces(layout.groups.size(), kGrain, threads, [&](int64_t begin, int64_t end) {
        VectorDecoder<Bits> decoder(luts, nbits, layout.length);
        for_each_coded_part(packed, layout, nbits, begin, end,
                            [&](const uint8_t* codes, int64_t group, int64_t offset, int64_t blocks, int64_t count) {
                                decoder.decode(codes, group, blocks, layout.inner, count, values + offset);
                            });
    });
}

template <typename Bits>
ErrorSums sum_vector_errors(const Bits* first, const uint8_t* packed, const VectorBlocks& layout, int nbits,
                            const Bits* luts, int threads) {
    const int64_t length = layout.length, inner = layout.inner;
    std::vector<ErrorSums> pieces(static_cast<size_t>((layout.groups.size() + kGrain - 1) / kGrain));
    WorkspacePool<std::vector<Bits>> spaces;
    parallel_pieces(layout.groups.size(), kGrain, threads, [&](int64_t begin, int64_t end) {
        const auto& value_kernels = kernels_for<Bits>(kernels());
        auto space = spaces.borrow();
        space->resize(static_cast<size_t>(kCodeTile * length));
        VectorDecoder<Bits> decoder(luts, nbits, length);
        ErrorSums* const sums = &pieces[static_cast<size_t>(begin / kGrain)];
        for_each_coded_part(
            packed, layout, nbits, begin, end,
            [&](const uint8_t* codes, int64_t group, int64_t offset, int64_t blocks, int64_t count) {
                // Decoded without the gaps that a part of a block has between its components.
                decoder.decode(codes, group, blocks, count, count, space->data());
                if (count == inner) {
                    value_kernels.add_errors(first + offset, space->data(), blocks * inner * length, sums);
                    return;
                }
                for (int64_t c = 0; c < length; ++c) {
                    value_kernels.add_errors(first + offset + c * inner, space->data() + c * count, count, sums);
                }
            });
    });
    return add_pieces(pieces);
}

template <typename Bits>
double cluster_vectors(const VectorSource<Bits>& source, int64_t k, int threads, float* centroids, int32_t* codes) {
    const int64_t length = source.layout.length, count = source.layout.count();
    const float factor = factor_of(source, 0);
    std::vector<float> entries;
    DistinctVectors<Bits> distinct;
    if (distinct.collect(source, 0, k)) {
        for (const Bits value : distinct.vectors()) entries.push_back(Format<Bits>::to_float(value) * factor);
    } else {
        VectorKmeans kmeans;
        kmeans.fit(VectorGroup<Bits>{source, 0, factor}, k, threads);
        entries = kmeans.entries();
    }
    std::vector<float> table(static_cast<size_t>(k * length));
    write_ascending(entries, length, k, NumberLess{}, table.data());
    std::vector<double> pieces(static_cast<size_t>((count + kGrain - 1) / kGrain), 0.0);
    WorkspacePool<VectorTile> tiles;
    parallel_pieces(count, kGrain, threads, [&](int64_t first, int64_t last) {
        auto tile = tiles.borrow();
        tile->make_room(length);
        for (int64_t begin = first; begin < last; begin += kVectorTile) {
            check_stop();
            const int64_t size = std::min(kVectorTile, last - begin);
            const VectorPlanes planes = source.load(begin, size, factor, *tile);
            kernels().assign_vectors(planes.planes, planes.weights, planes.stride, length, size, table.data(), k,
                                     tile->codes.data(), tile->distances.data());
            for (int64_t i = 0; i < size; ++i) {
                codes[begin + i] = tile->codes[static_cast<size_t>(i)];
                const double share = planes.shares == nullptr ? 1.0 : static_cast<double>(planes.shares[i]);
                pieces[static_cast<size_t>(first / kGrain)] +=
                    share * static_cast<double>(tile->distances[static_cast<size_t>(i)]);
            }
        }
    });
    const double scale = static_cast<double>(factor);
    for (int64_t i = 0; i < k * length; ++i) {
        centroids[i] = static_cast<float>(static_cast<double>(table[static_cast<size_t>(i)]) / scale);
    }
    double inertia = 0;
    for (const double piece : pieces) inertia += piece;
    return inertia / scale / scale;
}

#define COREPRESS_INSTANTIATE(Bits)                                                                                \
    template void fit_vector_tables(const VectorSource<Bits>&, int, int, Bits*);                                   \
    template void palettize_vectors(const VectorSource<Bits>&, int, const Bits*, int, uint8_t*);                   \
    template void depalettize_vectors(const uint8_t*, const VectorBlocks&, int, const Bits*, int, Bits*);          \
    template ErrorSums sum_vector_errors(const Bits*, const uint8_t*, const VectorBlocks&, int, const Bits*, int); \
    template double cluster_vectors(const VectorSource<Bits>&, int64_t, int, float*, int32_t*);
COREPRESS_INSTANTIATE(uint16_t)
COREPRESS_INSTANTIATE(BFloat16Bits)
COREPRESS_INSTANTIATE(uint32_t)
#undef COREPRESS_INSTANTIATE

}  // namespace corepress
