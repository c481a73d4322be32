#include "algo/prune/nested.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "algo/common/block_pieces.h"
#include "algo/common/key_ranges.h"
#include "algo/prune/mask_pieces.h"
#include "core/half.h"
#include "core/parallel.h"
#include "core/workspace.h"
#include "dispatch.h"

namespace corepress {
namespace {

constexpr int64_t kTile = 4096;
constexpr int64_t kLongRun = 16;  // worth a call through the table

// Calls body(group, count) for the elements of [begin, end) in memory order: so many neighbouring ones, of those that
// the mask keeps, belong to the group. The mask is that of these elements; without one all are kept.
template <typename Body>
void for_each_kept(const BlockLayout& layout, const uint8_t* mask, int64_t begin, int64_t end, const Body& body) {
    const auto visit = [&](int64_t group, int64_t offset, int64_t length) {
        const int64_t kept = mask == nullptr ? length : count_ones(mask, offset - begin, length);
        if (kept > 0) body(group, kept);
    };
    const auto runs = [&](int64_t group, int64_t offset, int64_t count, int64_t length) {
        for (int64_t run = 0; run < count; ++run) visit(group + run, offset + run * length, length);
    };
    const auto rows = [&](int64_t group, int64_t column, int64_t offset, int64_t count, int64_t width) {
        for (int64_t row = 0; row < count; ++row, offset += width) {
            for (int64_t done = 0; done < width;) {
                const int64_t place = column + done, until = layout.run() - place % layout.run();
                const int64_t length = std::min(until, width - done);
                visit(group + place / layout.run(), offset + done, length);
                done += length;
            }
        }
    };
    walk(layout, begin, end, runs, rows);
}

// Calls decode(group, codes, count, place) for all kept elements, whose codes, at most so many, stand in `packed` one
// after the other; place counts them. A mask may change meanwhile: a tile is decoded by a copy of its part.
template <typename Decode>
void for_each_code(const uint8_t* packed, const BlockLayout& layout, int nbits, const uint8_t* mask, int64_t most,
                   int threads, const Decode& decode) {
    if (layout.size() == 0) return;
    const std::vector<int64_t> offsets =
        mask == nullptr ? std::vector<int64_t>() : piece_offsets(mask, layout.size(), most, threads);
    parallel_pieces(layout.size(), kGrain, threads, [&](int64_t begin, int64_t end) {
        uint8_t tile_codes[kTile + 8], tile_mask[kTile / 8];
        int64_t place = begin, last = end;
        if (mask != nullptr) {
            const size_t piece = static_cast<size_t>(begin / kGrain);
            place = offsets[piece];
            last = offsets[piece + 1];
        }
        for (int64_t tile = begin; tile < end; tile += kTile) {
            const int64_t size = std::min(kTile, end - tile);
            int64_t count = size;
            if (mask != nullptr) {
                std::memcpy(tile_mask, mask + tile / 8, static_cast<size_t>((size + 7) / 8));
                count = std::min(kernels().count_bits(tile_mask, size), last - place);
            }
            const int64_t skipped = place % 8;  // codes are unpacked from a byte's start on
            kernels().unpack(packed + (place - skipped) * nbits / 8, skipped + count, nbits, tile_codes);
            const uint8_t* codes = tile_codes + skipped;
            const uint8_t* const kept = mask == nullptr ? nullptr : tile_mask;
            for_each_kept(layout, kept, tile, tile + size, [&](int64_t group, int64_t ones) {
                const int64_t length = std::min(ones, last - place);
                if (length == 0) return;
                decode(group, codes, length, place);
                codes += length;
                place += length;
            });
        }
    });
}

}  // namespace

template <typename T>
void look_up(const uint8_t* packed, const BlockLayout& layout, int nbits, const T* luts, const uint8_t* mask,
             int threads, Span<T> values) {
    for_each_code(packed, layout, nbits, mask, values.size(), threads,
                  [&](int64_t group, const uint8_t* codes, int64_t count, int64_t place) {
                      const T* const lut = luts + (group << nbits);
                      T* const out = values.data() + place;
                      if constexpr (sizeof(T) > 1) {
                          if (count >= kLongRun) {
                              return kernels_for<T>(kernels()).look_up(codes, count, lut, 1 << nbits, out);
                          }
                      }
                      for (int64_t i = 0; i < count; ++i) out[i] = lut[codes[i]];
                  });
}

template <typename Bits>
void dequantize_kept(const uint8_t* packed, const BlockLayout& layout, CodeType type, const Bits* scales,
                     const uint8_t* zero_points, const uint8_t* mask, int threads, Span<Bits> values,
                     const uint8_t* exponents) {
    const auto& kernels = kernels_for<Bits>(corepress::kernels());
    for_each_code(packed, layout, type.nbits, mask, values.size(), threads,
                  [&](int64_t group, const uint8_t* codes, int64_t count, int64_t place) {
                      const uint8_t byte = zero_points == nullptr ? uint8_t{0} : zero_points[group];
                      const int zero_point = type.is_signed ? static_cast<int8_t>(byte) : byte;
                      const float scale = exponents == nullptr ? Format<Bits>::to_float(scales[group])
                                                               : scale_of_exponent(exponents[group]);
                      const Affine affine{scale, static_cast<float>(zero_point)};
                      kernels.dequantize_runs(codes, 1, count, &affine, type.stored(), values.data() + place);
                  });
}

void gather_codes(const uint8_t* packed, int64_t count, int nbits, const uint8_t* mask, int64_t kept_count, int threads,
                  uint8_t* kept) {
    const std::vector<int64_t> offsets = piece_offsets(mask, count, kept_count, threads);
    std::vector<uint8_t> codes(static_cast<size_t>(kept_count));
    parallel_pieces(count, kGrain, threads, [&](int64_t begin, int64_t end) {
        uint8_t tile_codes[kTile];
        const Span<uint8_t> part = part_of(Span<uint8_t>(codes.data(), kept_count), offsets, begin);
        uint8_t* out = part.begin();
        for (int64_t tile = begin; tile < end; tile += kTile) {
            const int64_t length = std::min(kTile, end - tile);
            kernels().unpack(packed + tile * nbits / 8, length, nbits, tile_codes);
            for (int64_t byte = 0; byte * 8 < length; ++byte) {
                const int64_t bits = std::min<int64_t>(8, length - byte * 8);
                uint32_t ones = mask[tile / 8 + byte] & ((1u << bits) - 1);
                for (; ones != 0 && out != part.end(); ones &= ones - 1) {
                    *out++ = tile_codes[byte * 8 + __builtin_ctz(ones)];
                }
            }
        }
    });
    parallel_pieces(kept_count, kGrain, threads, [&](int64_t begin, int64_t end) {
        kernels().pack(codes.data() + begin, end - begin, nbits, kept + begin * nbits / 8);
    });
}

namespace {

// A tensor of channels as blocks, which are taken by rows where channels alternate often.
BlockLayout channels_of(const GroupLayout& layout) {
    return BlockLayout({{1, layout.outer}, {layout.groups, layout.run}});
}

// Calls of_run(values' place, count, scale) and of_columns(place, rows, columns, scales) for the parts of a tensor.
template <typename Bits, typename OfRun, typename OfColumns>
void for_each_scaled(const BlockLayout& layout, const Bits* scales, int threads, const OfRun& of_run,
                     const OfColumns& of_columns) {
    WorkspacePool<std::vector<float>> workers;
    for_each_piece(layout, threads, [&](int64_t begin, int64_t end) {
        const auto of_row = workers.borrow();
        const auto runs = [&](int64_t group, int64_t offset, int64_t count, int64_t length) {
            for (int64_t i = 0; i < count; ++i) {
                of_run(offset + i * length, length, Format<Bits>::to_float(scales[group + i]));
            }
        };
        const auto rows = [&](int64_t group, int64_t column, int64_t offset, int64_t count, int64_t columns) {
            of_row->resize(static_cast<size_t>(columns));
            for (int64_t i = 0; i < columns; ++i) {
                (*of_row)[static_cast<size_t>(i)] = Format<Bits>::to_float(scales[group + (column + i) / layout.run()]);
            }
            of_columns(offset, count, columns, of_row->data());
        };
        walk(layout, begin, end, runs, rows);
    });
}

template <typename Bits>
struct LargestMagnitudes {
    Ranges<KeyOf<Bits>> scratch;
    std::vector<Bits> found;  // of each channel
};

}  // namespace

template <typename Bits>
void normalize(const Bits* values, const GroupLayout& given, int threads, Bits* scales, Bits* quotients) {
    using Key = KeyOf<Bits>;
    const auto& kernels = kernels_for<Bits>(corepress::kernels());
    const BlockLayout layout = channels_of(given);
    WorkspacePool<LargestMagnitudes<Bits>> workers;
    for_each_piece(layout, threads, [&](int64_t begin, int64_t end) {
        const auto largest = workers.borrow();
        largest->found.resize(static_cast<size_t>(layout.groups()), 0);
        find_ranges(values, layout, begin, end, largest->scratch, [&](int64_t group, Key low, Key high) {
            const Bits most =
                std::max(bits_from_key<Bits>(std::max(high, Key{0})),
                         static_cast<Bits>(bits_from_key<Bits>(std::min(low, Key{0})) & Format<Bits>::kMagnitude));
            Bits& found = largest->found[static_cast<size_t>(group)];
            found = std::max(found, most);
        });
    });
    for (int64_t group = 0; group < layout.groups(); ++group) {
        Bits most = 0;
        for (const auto& worker : workers.objects()) most = std::max(most, worker->found[static_cast<size_t>(group)]);
        scales[group] = most == 0 ? Format<Bits>::from_float(1.0f) : most;
    }
    for_each_scaled(
        layout, scales, threads,
        [&](int64_t offset, int64_t count, float scale) {
            kernels.divide(values + offset, count, scale, quotients + offset);
        },
        [&](int64_t offset, int64_t rows, int64_t columns, const float* divisors) {
            kernels.divide_columns(values + offset, rows, columns, divisors, quotients + offset);
        });
}

template <typename Bits>
void denormalize(const Bits* quotients, const GroupLayout& layout, const Bits* scales, int threads, Bits* values) {
    const auto& kernels = kernels_for<Bits>(corepress::kernels());
    for_each_scaled(
        channels_of(layout), scales, threads,
        [&](int64_t offset, int64_t count, float scale) {
            kernels.multiply(quotients + offset, count, scale, values + offset);
        },
        [&](int64_t offset, int64_t rows, int64_t columns, const float* factors) {
            kernels.multiply_columns(quotients + offset, rows, columns, factors, values + offset);
        });
}

template void look_up(const uint8_t*, const BlockLayout&, int, const uint8_t*, const uint8_t*, int, Span<uint8_t>);
template void look_up(const uint8_t*, const BlockLayout&, int, const uint16_t*, const uint8_t*, int, Span<uint16_t>);
template void look_up(const uint8_t*, const BlockLayout&, int, const BFloat16Bits*, const uint8_t*, int,
                      Span<BFloat16Bits>);
template void look_up(const uint8_t*, const BlockLayout&, int, const uint32_t*, const uint8_t*, int, Span<uint32_t>);
template void dequantize_kept(const uint8_t*, const BlockLayout&, CodeType, const uint16_t*, const uint8_t*,
                              const uint8_t*, int, Span<uint16_t>, const uint8_t*);
template void dequantize_kept(const uint8_t*, const BlockLayout&, CodeType, const BFloat16Bits*, const uint8_t*,
                              const uint8_t*, int, Span<BFloat16Bits>, const uint8_t*);
template void dequantize_kept(const uint8_t*, const BlockLayout&, CodeType, const uint32_t*, const uint8_t*,
                              const uint8_t*, int, Span<uint32_t>, const uint8_t*);
template void normalize(const uint16_t*, const GroupLayout&, int, uint16_t*, uint16_t*);
template void normalize(const BFloat16Bits*, const GroupLayout&, int, BFloat16Bits*, BFloat16Bits*);
template void normalize(const uint32_t*, const GroupLayout&, int, uint32_t*, uint32_t*);
template void denormalize(const uint16_t*, const GroupLayout&, const uint16_t*, int, uint16_t*);
template void denormalize(const BFloat16Bits*, const GroupLayout&, const BFloat16Bits*, int, BFloat16Bits*);
template void denormalize(const uint32_t*, const GroupLayout&, const uint32_t*, int, uint32_t*);

}  // namespace corepress
