// The leaf loops at one instruction-set level. CMake compiles this file once per level, with COREPRESS_LEVEL naming it.
//
// Everything but the table is in an anonymous namespace, and nothing here may instantiate a template of the standard
// library: the linker would be free to keep this file's copy, with its instructions, for the whole program.
#include <stdint.h>
#include <string.h>

#include "core/half.h"
#include "core/rounding.h"
#include "kernels/table.h"

// GCC's unmasked 512-bit conversions warn of an uninitialized variable, so the masked ones are used with a full mask.
#if defined(__AVX512F__) || defined(__F16C__) || defined(__BMI2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace corepress {
namespace {

constexpr int64_t kTile = 1024;  // values held in registers' reach, in the first-level cache
constexpr int64_t kLanes = 8;    // doubles of a 512-bit register

// The lanes of sums, as the compilers' own vectors: arrays of eight are taken apart instead of vectorized.
typedef double Doubles __attribute__((vector_size(8 * sizeof(double))));
typedef float EightFloats __attribute__((vector_size(8 * sizeof(float))));

inline __attribute__((always_inline)) void load_doubles(const float* singles, Doubles& doubles) {
    EightFloats loaded;
    memcpy(&loaded, singles, sizeof loaded);
    doubles = __builtin_convertvector(loaded, Doubles);
}

// The next up to eight floats, zeros after them.
inline __attribute__((always_inline)) void load_doubles(const float* singles, int64_t count, Doubles& doubles) {
    float padded[kLanes] = {};
    memcpy(padded, singles, static_cast<size_t>(count) * sizeof *padded);
    load_doubles(padded, doubles);
}

// Calls body(length), as a constant that spares loops their tails for the usual sizes of blocks.
template <typename Body>
inline __attribute__((always_inline)) void with_constant(int64_t length, const Body& body) {
    if (length == 32) return body(int64_t{32});
    if (length == 16) return body(int64_t{16});
    if (length == 64) return body(int64_t{64});
    body(length);
}

// The conversions: compilers do not turn half.h's arithmetic into the instructions for it. The results are the same
// bits.
inline void widen(const uint16_t* half, int64_t count, float* single) {
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= count; i += 16) {
        const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(half + i));
        _mm512_storeu_ps(single + i, _mm512_maskz_cvtph_ps(0xffff, halves));
    }
#elif defined(__F16C__)
    for (; i + 8 <= count; i += 8) {
        _mm256_storeu_ps(single + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(half + i))));
    }
#elif defined(__aarch64__)
    for (; i + 4 <= count; i += 4) {
        vst1q_f32(single + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(half + i))));
    }
#endif
    for (; i < count; ++i) single[i] = float_from_half(half[i]);
}

inline void narrow(const float* single, int64_t count, uint16_t* half) {
    int64_t i = 0;
#if defined(__AVX512F__) || defined(__F16C__)
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT;
#endif
#if defined(__AVX512F__)
    for (; i + 16 <= count; i += 16) {
        const __m256i halves = _mm512_maskz_cvtps_ph(0xffff, _mm512_loadu_ps(single + i), kNearest);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(half + i), halves);
    }
#elif defined(__F16C__)
    for (; i + 8 <= count; i += 8) {
        const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(single + i), kNearest);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(half + i), halves);
    }
#elif defined(__aarch64__)
    for (; i + 4 <= count; i += 4) {
        vst1_u16(half + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(single + i))));
    }
#endif
    for (; i < count; ++i) half[i] = half_from_float(single[i]);
}

inline void widen(const BFloat16Bits* bits, int64_t count, float* single) {
    for (int64_t i = 0; i < count; ++i) single[i] = float_from_bfloat16(bits[i]);
}

inline void narrow(const float* single, int64_t count, BFloat16Bits* bits) {
    for (int64_t i = 0; i < count; ++i) bits[i] = bfloat16_from_float(single[i]);
}

inline void widen(const uint32_t* bits, int64_t count, float* single) {
    memcpy(single, bits, static_cast<size_t>(count) * sizeof *single);
}

inline void narrow(const float* single, int64_t count, uint32_t* bits) {
    memcpy(bits, single, static_cast<size_t>(count) * sizeof *single);
}

// The lowest bits of 64 bytes.
inline uint64_t lowest_bits(const uint8_t* bytes) {
#if defined(__AVX512F__)
    return _mm512_movepi8_mask(_mm512_slli_epi16(_mm512_loadu_si512(bytes), 7));
#elif defined(__AVX2__)
    uint64_t bits = 0;
    for (int i = 0; i < 64; i += 32) {
        const __m256i loaded = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + i));
        bits |= uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_slli_epi16(loaded, 7)))} << i;
    }
    return bits;
#else
    uint64_t bits = 0;
    for (int i = 0; i < 64; i += 8) {  // bit 8j lands on bit 56 + j, and none carries
        uint64_t word;
        memcpy(&word, bytes + i, sizeof word);
        bits |= ((word & 0x0101010101010101u) * 0x0102040810204080u >> 56) << i;
    }
    return bits;
#endif
}

#if defined(__AVX512F__)
// Sixteen values, each in 32 bits, for the instructions that move lanes by a mask.
template <typename Bits>
inline __m512i load_lanes(const Bits* values) {
    static_assert(sizeof(Bits) == 2, "half or bfloat16");
    return _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)));
}

inline __m512i load_lanes(const uint32_t* values) { return _mm512_loadu_si512(values); }

template <typename Bits>
inline void store_lanes(__m512i lanes, Bits* values) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(values), _mm512_maskz_cvtepi32_epi16(0xffff, lanes));
}

inline void store_lanes(__m512i lanes, uint32_t* values) { _mm512_storeu_si512(values, lanes); }

// Where the magnitudes of 64 values are above a threshold.
template <typename Bits>
inline uint64_t word_of_lanes_above(const Bits* values, Bits threshold) {
    static_assert(sizeof(Bits) == 2, "half or bfloat16");
    const __m512i magnitude = _mm512_set1_epi16(static_cast<short>(Format<Bits>::kMagnitude));
    const __m512i limit = _mm512_set1_epi16(static_cast<short>(threshold));
    uint64_t word = 0;
    for (int part = 0; part < 64; part += 32) {
        const __m512i lanes = _mm512_and_si512(_mm512_loadu_si512(values + part), magnitude);
        word |= uint64_t{_mm512_cmpgt_epi16_mask(lanes, limit)} << part;
    }
    return word;
}

inline uint64_t word_of_lanes_above(const uint32_t* values, uint32_t threshold) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    const __m512i limit = _mm512_set1_epi32(static_cast<int>(threshold));
    uint64_t word = 0;
    for (int part = 0; part < 64; part += 16) {
        const __m512i lanes = _mm512_and_si512(_mm512_loadu_si512(values + part), magnitude);
        word |= uint64_t{_mm512_cmpgt_epi32_mask(lanes, limit)} << part;
    }
    return word;
}

// A table of values of so many bytes, in some registers; select gives the entries at some places of it.
template <int size>
struct Lanes;

template <>
struct Lanes<2> {
    static constexpr int kCount = 32;
    static __m512i load_codes(const uint8_t* codes) {
        return _mm512_maskz_cvtepu8_epi16(~__mmask32{0}, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
    }
    static __m512i select_of_one(__m512i places, __m512i table) { return _mm512_permutexvar_epi16(places, table); }
    static __m512i select_of_two(__m512i places, const __m512i* table) {
        return _mm512_permutex2var_epi16(table[0], places, table[1]);
    }
    static __m512i choose(__m512i places, int bit, __m512i clear, __m512i set) {
        const __m512i wanted = _mm512_set1_epi16(static_cast<short>(bit));
        return _mm512_mask_blend_epi16(_mm512_test_epi16_mask(places, wanted), clear, set);
    }
};

template <>
struct Lanes<4> {
    static constexpr int kCount = 16;
    static __m512i load_codes(const uint8_t* codes) {
        return _mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
    }
    static __m512i select_of_one(__m512i places, __m512i table) {
        return _mm512_maskz_permutexvar_epi32(0xffff, places, table);
    }
    static __m512i select_of_two(__m512i places, const __m512i* table) {
        return _mm512_permutex2var_epi32(table[0], places, table[1]);
    }
    static __m512i choose(__m512i places, int bit, __m512i clear, __m512i set) {
        return _mm512_mask_blend_epi32(_mm512_test_epi32_mask(places, _mm512_set1_epi32(bit)), clear, set);
    }
};

template <typename Bits, int registers>
inline __m512i select(__m512i places, const __m512i* table) {
    if constexpr (registers == 1) {
        return Lanes<sizeof(Bits)>::select_of_one(places, table[0]);
    } else if constexpr (registers == 2) {
        return Lanes<sizeof(Bits)>::select_of_two(places, table);
    } else {
        constexpr int kHalf = registers / 2;
        return Lanes<sizeof(Bits)>::choose(places, kHalf * Lanes<sizeof(Bits)>::kCount,
                                           select<Bits, kHalf>(places, table),
                                           select<Bits, kHalf>(places, table + kHalf));
    }
}
#endif

#if defined(__AVX2__)
// For each byte of a mask, where the bytes of those of eight 16-bit values come from that stay.
struct MovesOfEight {
    alignas(16) uint8_t from[256][16] = {};

    constexpr MovesOfEight() {
        for (int mask = 0; mask < 256; ++mask) {
            int place = 0;
            for (int i = 0; i < 8; ++i) {
                if ((mask >> i & 1) == 0) continue;
                from[mask][place++] = static_cast<uint8_t>(2 * i);
                from[mask][place++] = static_cast<uint8_t>(2 * i + 1);
            }
        }
    }
};
constexpr MovesOfEight kMovesOfEight;

// Writes the ones of 64 values, and up to 64 values in all. Four instructions move eight values; AVX-512 without VBMI2
// compresses only 32-bit lanes, and takes half as long again.
template <typename Bits>
inline void move_word(const Bits* values, uint64_t word, Bits* out) {
    static_assert(sizeof(Bits) == 2, "half or bfloat16");
    for (int i = 0; i < 64; i += 8, word >>= 8) {
        const __m128i moves = _mm_load_si128(reinterpret_cast<const __m128i*>(kMovesOfEight.from[word & 0xff]));
        const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values + i));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_shuffle_epi8(eight, moves));
        out += __builtin_popcountll(word & 0xff);
    }
}
#endif

// Writes first + i for each of sixteen values that is not negative, and returns how many; there must be room for all.
inline int64_t list_not_negative(const float* values, int64_t first, int32_t* numbers) {
#if defined(__AVX512F__)
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i all = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int32_t>(first)));
    const __mmask16 kept = _mm512_cmp_ps_mask(_mm512_loadu_ps(values), _mm512_setzero_ps(), _CMP_NLT_UQ);
    _mm512_storeu_si512(numbers, _mm512_maskz_compress_epi32(kept, all));
    return __builtin_popcount(kept);
#else
    int64_t count = 0;
    for (int64_t i = 0; i < 16; ++i) {
        numbers[count] = static_cast<int32_t>(first + i);
        count += !(values[i] < 0);
    }
    return count;
#endif
}

#include "kernels/affine.inl.h"
#include "kernels/pack.inl.h"
#include "kernels/palette.inl.h"
#include "kernels/path.inl.h"
#include "kernels/scan.inl.h"
#include "kernels/steps.inl.h"
#include "kernels/vector.inl.h"

#include "kernels/mask.inl.h"  // uses the packer
#include "kernels/structure.inl.h"

template <typename Bits>
constexpr ValueKernels<Bits, typename Format<Bits>::Key> value_kernels() {
    using Key = typename Format<Bits>::Key;
    return {
        count_nonfinite<Bits>,
        run_key_ranges<Bits, Key>,
        column_key_range<Bits, Key>,
        assign_by_cuts<Bits, Key>,
        assign_by_search<Bits, Key>,
        assign_by_table<Bits, Key>,
        look_up<Bits>,
        load_vectors<Bits>,
        look_up_vectors<Bits>,
        join_planes<Bits>,
        quantize_runs<Bits>,
        quantize_columns<Bits>,
        dequantize_runs<Bits>,
        dequantize_columns<Bits>,
        divide<Bits>,
        multiply<Bits>,
        load_affines<Bits>,
        choose_affines<Bits, Key>,
        add_fit<Bits>,
        add_moments<Bits>,
        mask_above<Bits>,
        take_between<Bits>,
        compact<Bits>,
        expand<Bits>,
        keep_largest<Bits>,
        sum_block_squares<Bits>,
        mask_of_kept<Bits>,
        add_errors<Bits>,
        add_noise<Bits>,
    };
}

}  // namespace

#define COREPRESS_JOIN_(a, b) a##b
#define COREPRESS_JOIN(a, b) COREPRESS_JOIN_(a, b)
#define COREPRESS_TEXT_(a) #a
#define COREPRESS_TEXT(a) COREPRESS_TEXT_(a)

extern const KernelTable COREPRESS_JOIN(kernels_, COREPRESS_LEVEL);
const KernelTable COREPRESS_JOIN(kernels_, COREPRESS_LEVEL) = {
    COREPRESS_TEXT(COREPRESS_LEVEL),
    value_kernels<uint16_t>(),
    value_kernels<BFloat16Bits>(),
    value_kernels<uint32_t>(),
    pack_any<false>,
    unpack_any<false>,
    pack_any<true>,
    unpack_any<true>,
    merge_codes,
    extend_signs,
    count_bits,
    take_sums_between,
    keep_blocks_above,
    encode_steps,
    decode_steps,
    assign_vectors,
    assign_close_vectors,
    approach,
    cheapest_link,
    cheapest_links,
};

}  // namespace corepress
