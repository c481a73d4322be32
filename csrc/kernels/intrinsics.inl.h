// What compilers do not make of loops by themselves, with the level's own instructions. Each gives the same bits as the
// portable code beside it.
//
// GCC's unmasked 512-bit conversions warn of an uninitialized variable, so the masked ones are used with a full mask.

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
using SixteenBytes = __m128i;
inline SixteenBytes load_bytes(const void* bytes) { return _mm_loadu_si128(static_cast<const __m128i*>(bytes)); }
inline void store_bytes(SixteenBytes bytes, void* to) { _mm_storeu_si128(static_cast<__m128i*>(to), bytes); }
inline SixteenBytes move_bytes(SixteenBytes bytes, SixteenBytes from) { return _mm_shuffle_epi8(bytes, from); }
inline __m256i load_both_lanes(const void* bytes) { return _mm256_broadcastsi128_si256(load_bytes(bytes)); }
#define COREPRESS_MOVES_BYTES
#elif defined(__aarch64__)
using SixteenBytes = uint8x16_t;
inline SixteenBytes load_bytes(const void* bytes) { return vld1q_u8(static_cast<const uint8_t*>(bytes)); }
inline void store_bytes(SixteenBytes bytes, void* to) { vst1q_u8(static_cast<uint8_t*>(to), bytes); }
inline SixteenBytes move_bytes(SixteenBytes bytes, SixteenBytes from) { return vqtbl1q_u8(bytes, from); }
#define COREPRESS_MOVES_BYTES
#endif

#if defined(COREPRESS_MOVES_BYTES)
// For each byte of a mask, where the bytes of eight 16-bit values come from: those of the ones moved together, and
// those of the ones moved back apart, with zeros between.
struct MovesOfEight {
    static constexpr uint8_t kZero = 0x80;
    alignas(16) uint8_t together[256][16] = {};
    alignas(16) uint8_t apart[256][16] = {};

    constexpr MovesOfEight() {
        for (int mask = 0; mask < 256; ++mask) {
            int place = 0;
            for (int i = 0; i < 8; ++i) {
                const bool is_one = (mask >> i & 1) != 0;
                for (int byte = 0; byte < 2; ++byte) {
                    apart[mask][2 * i + byte] = is_one ? static_cast<uint8_t>(2 * place + byte) : kZero;
                    if (is_one) together[mask][2 * place + byte] = static_cast<uint8_t>(2 * i + byte);
                }
                place += is_one ? 1 : 0;
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
        store_bytes(move_bytes(load_bytes(values + i), load_bytes(kMovesOfEight.together[word & 0xff])), out);
        out += __builtin_popcountll(word & 0xff);
    }
}

// The inverse for eight values, of which it reads as many.
template <typename Bits>
inline void move_apart(const Bits* kept, uint8_t mask, Bits* values) {
    static_assert(sizeof(Bits) == 2, "half or bfloat16");
    store_bytes(move_bytes(load_bytes(kept), load_bytes(kMovesOfEight.apart[mask])), values);
}
#endif

// Entries of 16 bits by the codes of some values, from tables of their lower and of their upper bytes, of sixteen each.
#if defined(__AVX2__) && !defined(__AVX512F__)
#define COREPRESS_LOOKS_UP_BYTES
template <int kTables>
struct ByteTables {
    static constexpr int kCodes = 32;
    __m256i tables[kTables];

    explicit ByteTables(const uint8_t* bytes) {
        for (int i = 0; i < kTables; ++i) tables[i] = load_both_lanes(bytes + 16 * i);
    }
    __m256i look_up(__m256i codes) const { return select<kTables>(tables, codes); }

private:
    // The highest bit of a byte chooses, so the one that tells the halves apart is brought there.
    template <int kCount>
    static __m256i select(const __m256i* from, __m256i codes) {
        if constexpr (kCount == 1) {
            return _mm256_shuffle_epi8(from[0], codes);
        } else {
            constexpr int kHalf = kCount / 2, kShift = kHalf == 1 ? 3 : 2;
            return _mm256_blendv_epi8(select<kHalf>(from, codes), select<kHalf>(from + kHalf, codes),
                                      _mm256_slli_epi16(codes, kShift));
        }
    }
};

template <int kTables>
inline void look_up_codes(const uint8_t* codes, const ByteTables<kTables>& lower, const ByteTables<kTables>& upper,
                          char* values) {
    const __m256i loaded = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
    const __m256i low = lower.look_up(loaded), high = upper.look_up(loaded);
    const __m256i even = _mm256_unpacklo_epi8(low, high), odd = _mm256_unpackhi_epi8(low, high);
    __m256i* const to = reinterpret_cast<__m256i*>(values);
    _mm256_storeu_si256(to, _mm256_permute2x128_si256(even, odd, 0x20));
    _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(even, odd, 0x31));
}
#elif defined(__aarch64__)
#define COREPRESS_LOOKS_UP_BYTES
template <int kTables>
struct ByteTables {
    static constexpr int kCodes = 16;
    uint8x16_t tables[kTables];

    explicit ByteTables(const uint8_t* bytes) {
        for (int i = 0; i < kTables; ++i) tables[i] = vld1q_u8(bytes + 16 * i);
    }
    uint8x16_t look_up(uint8x16_t codes) const {
        if constexpr (kTables == 1) {
            return vqtbl1q_u8(tables[0], codes);
        } else if constexpr (kTables == 2) {
            const uint8x16x2_t both = {{tables[0], tables[1]}};
            return vqtbl2q_u8(both, codes);
        } else {
            const uint8x16x4_t all = {{tables[0], tables[1], tables[2], tables[3]}};
            return vqtbl4q_u8(all, codes);
        }
    }
};

template <int kTables>
inline void look_up_codes(const uint8_t* codes, const ByteTables<kTables>& lower, const ByteTables<kTables>& upper,
                          char* values) {
    const uint8x16_t loaded = vld1q_u8(codes);
    // Named, as some of these functions are macros of Clang's, which commas in braces would give more arguments.
    const uint8x16x2_t bytes = {{lower.look_up(loaded), upper.look_up(loaded)}};
    vst2q_u8(reinterpret_cast<uint8_t*>(values), bytes);
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
#elif defined(__AVX2__)
    int64_t count = 0;
    for (int part = 0; part < 16; part += 8) {  // few are not negative
        const __m256 kept = _mm256_cmp_ps(_mm256_loadu_ps(values + part), _mm256_setzero_ps(), _CMP_NLT_UQ);
        for (int bits = _mm256_movemask_ps(kept); bits != 0; bits &= bits - 1) {
            numbers[count++] = static_cast<int32_t>(first + part + __builtin_ctz(static_cast<unsigned>(bits)));
        }
    }
    return count;
#else
    int64_t count = 0;
    for (int64_t i = 0; i < 16; ++i) {
        numbers[count] = static_cast<int32_t>(first + i);
        count += !(values[i] < 0);
    }
    return count;
#endif
}

#if defined(__AVX512F__)
inline __m256 singles_of(__m128i patterns, uint16_t) { return _mm256_cvtph_ps(patterns); }
inline __m256 singles_of(__m128i patterns, BFloat16Bits) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(patterns), 16));
}

// Points of those of sixteen values whose counts are not 0: of patterns from `first` on, or of negative values, which
// ascend in reverse.
template <typename Bits>
inline Point* take_points(size_t first, const uint32_t* counted, Point* points) {
    const bool is_negative = first >= kPatterns / 2;
    const __m256i order =
        is_negative ? _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0) : _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m128i places =
        is_negative ? _mm_setr_epi16(7, 6, 5, 4, 3, 2, 1, 0) : _mm_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7);
    const __m512i low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11),
                  high = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    for (int half = 0; half < 2; ++half) {
        const int begin = is_negative ? 8 - 8 * half : 8 * half;
        const __m256i stored = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(counted + begin));
        const __m256i counts = _mm256_permutevar8x32_epi32(stored, order);
        const __m128i patterns =
            _mm_add_epi16(_mm_set1_epi16(static_cast<short>(static_cast<int>(first) + begin)), places);
        const __m512d values = _mm512_maskz_cvtps_pd(0xff, singles_of(patterns, Bits{}));
        const __m512d weights = _mm512_maskz_cvtepu32_pd(0xff, counts);
        const uint32_t occurring = _mm256_test_epi32_mask(counts, counts);
        const uint32_t numbers = _pdep_u32(occurring, 0x5555) * 3;  // two of each point
        const __m512d lower = _mm512_permutex2var_pd(values, low, weights);
        const __m512d upper = _mm512_permutex2var_pd(values, high, weights);
        _mm512_storeu_pd(points, _mm512_maskz_compress_pd(static_cast<__mmask8>(numbers), lower));
        points += __builtin_popcount(occurring & 0xf);
        _mm512_storeu_pd(points, _mm512_maskz_compress_pd(static_cast<__mmask8>(numbers >> 8), upper));
        points += __builtin_popcount(occurring >> 4);
    }
    return points;
}
#else
template <typename Bits>
inline Point* take_points(size_t first, const uint32_t* counts, Point* points) {
    const bool is_negative = first >= kPatterns / 2;
    const size_t lowest = is_negative ? first + 15 : first;
    const auto value = [](size_t pattern) {
        return static_cast<double>(Format<Bits>::to_float(static_cast<Bits>(pattern)));
    };
    // They have one exponent, hence values in even steps.
    const double start = value(lowest), step = value(is_negative ? lowest - 1 : lowest + 1) - start;
    for (int i = 0; i < 16; ++i) {
        const uint32_t count = counts[is_negative ? 15 - i : i];
        *points = {start + i * step, static_cast<double>(count)};
        points += count > 0 ? 1 : 0;  // a branch would be mispredicted half of the time
    }
    return points;
}
#endif

// Registers of ranks. Written as the compilers' own vectors, ranks travel through memory to have their bits changed.
#if defined(__AVX512F__)
#define COREPRESS_RANKS_ENTRIES
struct Ranks {
    using Register = __m512;
    static constexpr int kRegisters = 2;  // that the loop over entries keeps in work
    static Register all(float number) { return _mm512_set1_ps(number); }
    static Register multiply_add(Register a, Register b, Register c) { return _mm512_fmadd_ps(a, b, c); }
    static Register lesser(Register a, Register b) { return _mm512_maskz_min_ps(0xffff, a, b); }
    static Register greater(Register a, Register b) { return _mm512_maskz_max_ps(0xffff, a, b); }
    static Register replace(Register rank, int32_t mask, int32_t number) {
        constexpr int kKeptOrNumber = 0xea;  // (first & second) | third
        const __m512i kept = _mm512_set1_epi32(~mask), numbers = _mm512_set1_epi32(number);
        return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(rank), kept, numbers, kKeptOrNumber));
    }
};
#elif defined(__AVX2__)
#define COREPRESS_RANKS_ENTRIES
struct Ranks {
    using Register = __m256;
    static constexpr int kRegisters = 1;
    static Register all(float number) { return _mm256_set1_ps(number); }
    static Register multiply_add(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }
    static Register lesser(Register a, Register b) { return _mm256_min_ps(a, b); }
    static Register greater(Register a, Register b) { return _mm256_max_ps(a, b); }
    static Register replace(Register rank, int32_t mask, int32_t number) {
        const __m256 kept = _mm256_castsi256_ps(_mm256_set1_epi32(~mask));
        return _mm256_or_ps(_mm256_and_ps(rank, kept), _mm256_castsi256_ps(_mm256_set1_epi32(number)));
    }
};
#elif defined(__aarch64__)
#define COREPRESS_RANKS_ENTRIES
struct Ranks {
    using Register = float32x4_t;
    static constexpr int kRegisters = 2;
    static Register all(float number) { return vdupq_n_f32(number); }
    static Register multiply_add(Register a, Register b, Register c) { return vfmaq_f32(c, a, b); }
    static Register lesser(Register a, Register b) { return vminq_f32(a, b); }
    static Register greater(Register a, Register b) { return vmaxq_f32(a, b); }
    static Register replace(Register rank, int32_t mask, int32_t number) {
        return vreinterpretq_f32_s32(
            vbslq_s32(vdupq_n_u32(static_cast<uint32_t>(mask)), vdupq_n_s32(number), vreinterpretq_s32_f32(rank)));
    }
};
#endif
