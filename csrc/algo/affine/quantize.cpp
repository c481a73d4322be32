#include "algo/affine/quantize.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "algo/affine/scale.h"
#include "algo/common/block_pieces.h"
#include "algo/common/key_ranges.h"
#include "core/half.h"
#include "core/parallel.h"
#include "core/workspace.h"
#include "dispatch.h"

namespace corepress {
namespace {

constexpr int64_t kCodeTile = 4096;

// Codes of a tile: whole rows where the tensor is taken by rows that fit, and a multiple of the unit, at most twice
// kCodeTile, so that packed codes begin at a byte.
int64_t code_tile(const BlockLayout& layout, int64_t unit) {
    const int64_t row = layout.row_length();
    int64_t tile = 2 * kCodeTile / unit;
    if (by_rows(layout) && row <= tile) tile -= tile % row;
    return in_units(tile, unit);
}

// The parameters of neighbouring blocks.
struct Affines {
    const Affine* data;
    int64_t first;  // block

    const Affine* from(int64_t group) const { return data + (group - first); }
};

// Parameters of columns, out of those of blocks: the blocks' own where a run is one element.
class Columns {
public:
    const Affine* of(const BlockLayout& layout, Affines affines, int64_t group) {
        if (layout.run() == 1) return affines.from(group);
        if (group != group_) {
            spread_.resize(static_cast<size_t>(layout.row_length()));
            for (size_t i = 0; i < spread_.size(); ++i) {
                spread_[i] = *affines.from(group + static_cast<int64_t>(i) / layout.run());
            }
            group_ = group;
        }
        return spread_.data();
    }

private:
    std::vector<Affine> spread_;
    int64_t group_ = -1;
};

// Decodes the codes of [begin, end) to values[0] and on. of_runs(group, count) and of_columns(group, column, width)
// give the parameters of neighbouring blocks, or of parts of rows.
template <typename Bits, typename OfRuns, typename OfColumns>
void decode_tile(const uint8_t* codes, const BlockLayout& layout, StoredCode stored, int64_t begin, int64_t end,
                 Bits* values, const OfRuns& of_runs, const OfColumns& of_columns) {
    const auto& kernels = kernels_for<Bits>(corepress::kernels());
    const auto runs = [&](int64_t group, int64_t offset, int64_t count, int64_t length) {
        kernels.dequantize_runs(codes + (offset - begin), count, length, of_runs(group, count), stored,
                                values + (offset - begin));
    };
    const auto rows = [&](int64_t group, int64_t column, int64_t offset, int64_t count, int64_t width) {
        kernels.dequantize_columns(codes + (offset - begin), count, width, of_columns(group, column, width), stored,
                                   values + (offset - begin));
    };
    walk(layout, begin, end, runs, rows);
}

template <typename Bits>
class Quantizer {
public:
    using Key = KeyOf<Bits>;

    Quantizer(const Bits* values, const float* importance, const BlockLayout& layout, AffineEncoding encoding,
              Bits* scales, uint8_t* zero_points, uint8_t* packed, uint8_t* exponents)
        : values_(values),
          importance_(importance),
          layout_(layout),
          encoding_(encoding),
          codes_(codes_of(encoding)),
          scales_(scales),
          zero_points_(zero_points),
          packed_(packed),
          exponents_(exponents),
          unit_(encoding.type.unit()) {}

    // Blocks that lie within a small part of the tensor: the part is read once, while it is in the cache. The noise, if
    // it is asked for; false if there are values that are not finite.
    bool by_slabs(int threads, Noise* noise) {
        const int64_t slab = layout_.slab_size(), groups = layout_.slab_groups();
        const int64_t together = std::max<int64_t>(unit_, kGrain / slab / unit_ * unit_);
        WorkspacePool<Workspace> workspaces;
        std::vector<Noise> noises(static_cast<size_t>(noise == nullptr ? 0 : layout_.slabs() / together + 1));
        std::atomic<bool> finite{true};
        parallel_pieces(layout_.slabs(), together, threads, [&](int64_t first, int64_t last) {
            auto workspace = workspaces.borrow();
            const int64_t begin = first * groups, count = (last - first) * groups;
            workspace->ranges.reset(count);
            Key* const lowest = workspace->ranges.lowest.data();
            Key* const highest = workspace->ranges.highest.data();
            if (slab == layout_.run() && !by_rows(layout_)) {
                kernels_for<Bits>(kernels()).run_key_ranges(values_ + first * slab, count, slab, lowest, highest);
            } else {
                find_ranges(values_, layout_, first * slab, last * slab, workspace->scratch,
                            [&](int64_t group, Key low, Key high) {
                                Key &least = lowest[group - begin], &most = highest[group - begin];
                                least = std::min(least, low);
                                most = std::max(most, high);
                            });
            }
            if (!are_finite<Bits>(lowest, highest, count)) finite.store(false, std::memory_order_relaxed);
            if (!finite.load(std::memory_order_relaxed)) return;
            workspace->affines.resize(static_cast<size_t>(count));
            Affine* const affines = workspace->affines.data();
            choose(begin, begin + count, lowest, highest, affines);
            encode(first * slab, last * slab, {affines, begin}, workspace->columns,
                   noise == nullptr ? nullptr : &noises[static_cast<size_t>(first / together)]);
        });
        add_in_order(noises, noise);
        return finite.load();
    }

    // Blocks that are spread over the tensor, which is read twice.
    bool by_passes(int threads, Noise* noise) {
        WorkspacePool<Workspace> workspaces;
        const Ranges<Key> ranges = ranges_of_blocks(values_, layout_, threads);
        const Key *const lowest = ranges.lowest.data(), *const highest = ranges.highest.data();
        if (!are_finite<Bits>(lowest, highest, layout_.groups())) return false;
        std::vector<Affine> affines(static_cast<size_t>(layout_.groups()));
        const int64_t grain = std::max<int64_t>(1, kGrain / layout_.group_size());
        parallel_pieces(layout_.groups(), grain, threads, [&](int64_t begin, int64_t end) {
            choose(begin, end, lowest + begin, highest + begin, affines.data() + begin);
        });
        const int64_t piece = piece_size(layout_, unit_);
        std::vector<Noise> noises(static_cast<size_t>(noise == nullptr ? 0 : layout_.size() / piece + 1));
        for_each_piece(
            layout_, threads,
            [&](int64_t begin, int64_t end) {
                auto workspace = workspaces.borrow();
                encode(begin, end, {affines.data(), 0}, workspace->columns,
                       noise == nullptr ? nullptr : &noises[static_cast<size_t>(begin / piece)]);
            },
            unit_);
        add_in_order(noises, noise);
        return true;
    }

private:
    struct Workspace {
        Ranges<Key> ranges, scratch;
        std::vector<Affine> affines;
        Columns columns;
    };

    // Scales and zero points of the blocks [begin, end), whose ranges are given.
    void choose(int64_t begin, int64_t end, const Key* lowest, const Key* highest, Affine* affines) {
        if (encoding_.binary_scales) return choose_binary(begin, end, lowest, highest, affines);
        const float largest = Format<Bits>::to_float(static_cast<Bits>(Format<Bits>::kInfinity - 1));
        const AffineRule rule{codes_.scaled, encoding_.symmetric, codes_.symmetric_zero_point,
                              Format<Bits>::to_float(Format<Bits>::kNormal), largest / 2};
        const int64_t unusual = kernels_for<Bits>(kernels()).choose_affines(lowest, highest, end - begin, rule, affines,
                                                                            scales_ + begin, zero_points_ + begin);
        if (unusual == 0 && !encoding_.search_scale) return;
        for (int64_t i = 0; i < end - begin; ++i) {
            const double low = value_of_key<Bits>(lowest[i]), high = value_of_key<Bits>(highest[i]);
            const BlockValues<Bits> block{values_, importance_, layout_, begin + i};
            affines[i] = choose_affine<Bits>(low, high, codes_, encoding_.symmetric);
            if (is_coarse<Bits>(affines[i].scale)) {
                affines[i] = round_scale(block, codes_, affines[i]);
            }
            if (encoding_.search_scale) {
                affines[i] = search_affine(block, low, high, codes_, encoding_.symmetric, affines[i]);
            }
            scales_[begin + i] = Format<Bits>::from_float(affines[i].scale);
            zero_points_[begin + i] = static_cast<uint8_t>(static_cast<int>(affines[i].zero_point));
        }
    }

    void choose_binary(int64_t begin, int64_t end, const Key* lowest, const Key* highest, Affine* affines) {
        for (int64_t i = 0; i < end - begin; ++i) {
            const double low = value_of_key<Bits>(lowest[i]), high = value_of_key<Bits>(highest[i]);
            affines[i] = choose_binary_affine<Bits>(low, high, codes_);
            if (encoding_.search_scale) {
                affines[i] = search_binary_affine<Bits>({values_, importance_, layout_, begin + i}, codes_, affines[i]);
            }
            exponents_[begin + i] = static_cast<uint8_t>(bits_from_float(affines[i].scale) >> 23);
            zero_points_[begin + i] = static_cast<uint8_t>(static_cast<int>(affines[i].zero_point));
        }
    }

    static void add_in_order(const std::vector<Noise>& pieces, Noise* total) {
        for (const Noise& piece : pieces) {
            total->squared_error += piece.squared_error;
            total->squared_first += piece.squared_first;
        }
    }

    // Adds to the noise, unless it is null, while values and codes are in the cache.
    void encode(int64_t begin, int64_t end, Affines affines, Columns& columns, Noise* noise) const {
        const int nbits = encoding_.type.nbits;
        uint8_t space[2 * kCodeTile];
        const int64_t tile = code_tile(layout_, unit_);
        for (int64_t first = begin; first < end; first += tile) {
            const int64_t last = std::min(first + tile, end);
            uint8_t* const codes = nbits == 8 ? packed_ + first : space;
            encode_part(first, last, affines, codes, columns);
            if (noise != nullptr) add_noise(first, last, affines, codes, columns, noise);
            if (nbits != 8) kernels().pack(codes, last - first, nbits, packed_ + first * nbits / 8);
        }
    }

    void add_noise(int64_t begin, int64_t end, Affines affines, const uint8_t* codes, Columns& columns,
                   Noise* noise) const {
        Bits decoded[2 * kCodeTile];
        const StoredCode stored = encoding_.type.stored_as_bytes();
        decode_tile(
            codes, layout_, stored, begin, end, decoded, [&](int64_t group, int64_t) { return affines.from(group); },
            [&](int64_t group, int64_t column, int64_t) { return columns.of(layout_, affines, group) + column; });
        kernels_for<Bits>(kernels()).add_noise(values_ + begin, decoded, end - begin, noise);
    }

    void encode_part(int64_t begin, int64_t end, Affines affines, uint8_t* codes, Columns& columns) const {
        const auto& kernels = kernels_for<Bits>(corepress::kernels());
        const auto runs = [&](int64_t group, int64_t offset, int64_t count, int64_t length) {
            kernels.quantize_runs(values_ + offset, count, length, affines.from(group), codes_.used,
                                  codes + (offset - begin));
        };
        const auto rows = [&](int64_t group, int64_t column, int64_t offset, int64_t count, int64_t width) {
            const Affine* const of_columns = columns.of(layout_, affines, group) + column;
            kernels.quantize_columns(values_ + offset, count, width, of_columns, codes_.used, codes + (offset - begin));
        };
        walk(layout_, begin, end, runs, rows);
    }

    const Bits* values_;
    const float* importance_;
    const BlockLayout& layout_;
    AffineEncoding encoding_;
    Codes codes_;
    Bits* scales_;
    uint8_t* zero_points_;
    uint8_t* packed_;
    uint8_t* exponents_;
    int64_t unit_;
};

// Whether the parts of the tensor that hold whole blocks fit a core's cache, or are as many as several cores can share.
bool has_small_slabs(const BlockLayout& layout) {
    constexpr int64_t kCached = int64_t{1} << 20, kMany = 8;
    return layout.slab_size() <= kGrain || (layout.slab_size() <= kCached && layout.slabs() >= kMany);
}

}  // namespace

template <typename Bits>
bool quantize(const Bits* values, const float* importance, const BlockLayout& layout, AffineEncoding encoding,
              int threads, Bits* scales, uint8_t* zero_points, uint8_t* packed, Noise* noise, uint8_t* exponents) {
    if (layout.size() == 0) return true;
    Quantizer<Bits> quantizer(values, importance, layout, encoding, scales, zero_points, packed, exponents);
    return has_small_slabs(layout) ? quantizer.by_slabs(threads, noise) : quantizer.by_passes(threads, noise);
}

namespace {

// Parameters of a tile's blocks as the loops take them. Widened for all blocks they could take more memory than the
// codes.
template <typename Bits>
class TileAffines {
public:
    TileAffines(const BlockLayout& layout, CodeType type, const Bits* scales, const uint8_t* zero_points,
                const uint8_t* exponents)
        : layout_(layout),
          is_signed_(type.is_signed),
          scales_(scales),
          zero_points_(zero_points),
          exponents_(exponents) {}

    const Affine* of_runs(int64_t group, int64_t count) { return load(group, count, affines_); }

    // One for each of `width` columns from `column` on of a row that begins with `group`.
    const Affine* of_columns(int64_t group, int64_t column, int64_t width) {
        if (group == group_ && column == column_ && width == width_) return affines_;
        group_ = group;
        column_ = column;
        width_ = width;
        const int64_t run = layout_.run(), first = column / run;
        if (run == 1) return load(group + first, width, affines_);
        Affine of_blocks[kCodeTile];
        load(group + first, (column + width - 1) / run - first + 1, of_blocks);
        for (int64_t i = 0; i < width; ++i) affines_[i] = of_blocks[(column + i) / run - first];
        return affines_;
    }

private:
    const Affine* load(int64_t group, int64_t count, Affine* affines) const {
        const uint8_t* const zero_points = zero_points_ == nullptr ? nullptr : zero_points_ + group;
        if (exponents_ == nullptr) {
            kernels_for<Bits>(kernels()).load_affines(scales_ + group, zero_points, count, is_signed_, affines);
            return affines;
        }
        for (int64_t i = 0; i < count; ++i) {
            const uint8_t byte = zero_points == nullptr ? uint8_t{0} : zero_points[i];
            const int zero_point = is_signed_ ? static_cast<int8_t>(byte) : byte;
            affines[i] = {scale_of_exponent(exponents_[group + i]), static_cast<float>(zero_point)};
        }
        return affines;
    }

    const BlockLayout& layout_;
    bool is_signed_;
    const Bits* scales_;
    const uint8_t* zero_points_;
    const uint8_t* exponents_;
    int64_t group_ = -1, column_ = -1, width_ = -1;
    Affine affines_[kCodeTile];
};

template <typename Bits>
class Dequantizer {
public:
    Dequantizer(const uint8_t* packed, const BlockLayout& layout, CodeType type, const Bits* scales,
                const uint8_t* zero_points, const uint8_t* exponents)
        : packed_(packed),
          layout_(layout),
          type_(type),
          scales_(scales),
          zero_points_(zero_points),
          exponents_(exponents) {}

    // Decodes [begin, end), where packed codes begin at a byte, to values[0] and on.
    void decode(int64_t begin, int64_t end, Bits* values) const {
        uint8_t unpacked[2 * kCodeTile];
        TileAffines<Bits> affines(layout_, type_, scales_, zero_points_, exponents_);
        const int64_t tile = code_tile(layout_, type_.unit());
        for (int64_t first = begin; first < end; first += tile) {
            const int64_t last = std::min(first + tile, end);
            const uint8_t* codes = packed_ + first;
            if (type_.nbits != 8) {
                corepress::kernels().unpack(packed_ + first * type_.nbits / 8, last - first, type_.nbits, unpacked);
                codes = unpacked;
            }
            decode_tile(
                codes, layout_, type_.stored(), first, last, values + (first - begin),
                [&](int64_t group, int64_t count) { return affines.of_runs(group, count); },
                [&](int64_t group, int64_t column, int64_t width) { return affines.of_columns(group, column, width); });
        }
    }

private:
    const uint8_t* packed_;
    const BlockLayout& layout_;
    CodeType type_;
    const Bits* scales_;
    const uint8_t* zero_points_;
    const uint8_t* exponents_;
};

}  // namespace

template <typename Bits>
void dequantize(const uint8_t* packed, const BlockLayout& layout, CodeType type, const Bits* scales,
                const uint8_t* zero_points, int threads, Bits* values, const uint8_t* exponents) {
    if (layout.size() == 0) return;
    const Dequantizer<Bits> dequantizer(packed, layout, type, scales, zero_points, exponents);
    for_each_piece(
        layout, threads, [&](int64_t begin, int64_t end) { dequantizer.decode(begin, end, values + begin); },
        type.unit());
}

template <typename Bits>
ErrorSums sum_quantized_errors(const Bits* first, const uint8_t* packed, const BlockLayout& layout, CodeType type,
                               const Bits* scales, const uint8_t* zero_points, int threads, const uint8_t* exponents) {
    if (layout.size() == 0) return {};
    const Dequantizer<Bits> dequantizer(packed, layout, type, scales, zero_points, exponents);
    return sum_errors_of(first, layout.size(), threads, [&](int64_t begin, int64_t end, std::vector<Bits>& decoded) {
        decoded.resize(static_cast<size_t>(kGrain));
        dequantizer.decode(begin, end, decoded.data());
        return static_cast<const Bits*>(decoded.data());
    });
}

#define COREPRESS_INSTANTIATE(Bits)                                                                                 \
    template bool quantize(const Bits*, const float*, const BlockLayout&, AffineEncoding, int, Bits*, uint8_t*,     \
                           uint8_t*, Noise*, uint8_t*);                                                             \
    template void dequantize(const uint8_t*, const BlockLayout&, CodeType, const Bits*, const uint8_t*, int, Bits*, \
                             const uint8_t*);                                                                       \
    template ErrorSums sum_quantized_errors(const Bits*, const uint8_t*, const BlockLayout&, CodeType, const Bits*, \
                                            const uint8_t*, int, const uint8_t*);
COREPRESS_INSTANTIATE(uint16_t)
COREPRESS_INSTANTIATE(BFloat16Bits)
COREPRESS_INSTANTIATE(uint32_t)
#undef COREPRESS_INSTANTIATE

}  // namespace corepress
