// The values that were counted, as points on a line.

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
        points += count_ones(occurring & 0xf);
        _mm512_storeu_pd(points, _mm512_maskz_compress_pd(static_cast<__mmask8>(numbers >> 8), upper));
        points += count_ones(occurring >> 4);
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

// Most patterns do not occur, so many are passed over at once.
template <typename Bits>
int64_t points_of_counts(uint32_t* counts, Point* points) {
    constexpr size_t kTogether = 16, kMinusZero = kPatterns / 2;
    counts[0] += counts[kMinusZero];
    counts[kMinusZero] = 0;
    Point* point = points;
    for (int pattern = 0; pattern < kPatterns; pattern += static_cast<int>(kTogether)) {
        const bool is_negative = pattern < kPatterns / 2;
        const size_t first = stored_pattern(is_negative ? pattern + static_cast<int>(kTogether) - 1 : pattern);
        uint32_t* const together = counts + first;
        uint32_t any = 0;
        for (size_t i = 0; i < kTogether; ++i) any |= together[i];
        if (any == 0) continue;
        point = take_points<Bits>(first, together, point);
        memset(together, 0, kTogether * sizeof *together);
    }
    return point - points;
}

template <typename Bits>
constexpr auto counted_points() -> int64_t (*)(uint32_t*, Point*) {
    if constexpr (sizeof(Bits) == 2) {
        return points_of_counts<Bits>;
    } else {
        return nullptr;
    }
}
