// The nearest entry alone, without its distance: |c|^2 - 2xc ranks entries as the squared distances do, in about
// half of the operations. It is rounded otherwise, so vectors for which two entries are about as near are looked at
// again.

constexpr int64_t kMostCodes = 256;
constexpr float kMostSquare = 1e37f;

#if defined(COREPRESS_RANKS_ENTRIES)
// Entries as the ranking takes them, and in planes.
template <int kLength>
struct RankedEntries {
    float offsets[kMostCodes];           // |c|^2
    float slopes[kMostCodes * kLength];  // -2 c
    float planes[kLength][kMostCodes + kWide];
    int64_t count, padded;
    bool usual = true;  // no rank can overflow

    RankedEntries(const float* entries, int64_t entry_count) : count(entry_count) {
        padded = (count + kWide - 1) / kWide * kWide;
        for (int64_t j = 0; j < count; ++j) {
            float square = 0;
            for (int c = 0; c < kLength; ++c) {
                const float component = entries[j * kLength + c];
                square += component * component;
                slopes[j * kLength + c] = -2 * component;
                planes[c][j] = component;
            }
            offsets[j] = square;
            usual = usual && square < kMostSquare;
        }
        for (int c = 0; c < kLength; ++c) {
            for (int64_t j = count; j < padded; ++j) planes[c][j] = planes[c][0];
        }
    }

    // By the distances, as assign_vectors has them.
    uint16_t nearest(const float* vector, int64_t stride) const {
        constexpr int32_t kFirst[kWide] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        Floats least = broadcast<float, kWide>(__builtin_inff());
        Ints number, code = {};
        load(kFirst, number);
        for (int64_t j = 0; j < padded; j += kWide, number = number + static_cast<int32_t>(kWide)) {
            Floats distance = {};
            COREPRESS_UNROLL
            for (int c = 0; c < kLength; ++c) {
                const Floats difference = floats_at<kWide>(planes[c] + j) - vector[c * stride];
                const Floats square = difference * difference;
                distance = c == 0 ? square : distance + square;
            }
            const Ints nearer = less(distance, least);
            least = choose(nearer, distance, least);
            code = choose(nearer, number, code);
        }
        return static_cast<uint16_t>(least_lane(least, code).place);
    }
};

template <int kLength>
inline void nearest_codes_of(const float* planes, int64_t stride, int64_t count, const float* entries,
                             int64_t entry_count, uint16_t* codes) {
    // Of entries that are no farther from x than d, ranks are between -|x|^2 and d^2, and their terms at most five
    // times as large as both together. The number in the last 8 of 24 bits moves a rank by less than 2^-15 of it; what
    // is lost by rounding, in ranks and distances, is less than 2^-17 of both together.
    constexpr float kMargin = 0x1p-14f * 1.1875f, kUnderflow = 0x1p-100f;
    constexpr int32_t kNumber = 0xff;
    constexpr int kRegisters = kLength > 4 ? 1 : Ranks::kRegisters, kCount = kRegisters * kInRegister;
    const RankedEntries<kLength> ranked(entries, entry_count);
    for (int64_t i = 0; i < count; i += kCount) {
        Ranks::Register known[kRegisters][kLength], first[kRegisters], second[kRegisters];
        COREPRESS_UNROLL
        for (int r = 0; r < kRegisters; ++r) {
            COREPRESS_UNROLL
            for (int c = 0; c < kLength; ++c) {
                memcpy(&known[r][c], planes + c * stride + i + r * kInRegister, sizeof known[r][c]);
            }
            first[r] = second[r] = Ranks::all(__builtin_inff());
        }
        for (int64_t j = 0; j < ranked.count; ++j) {
            COREPRESS_UNROLL
            for (int r = 0; r < kRegisters; ++r) {
                Ranks::Register rank = Ranks::all(ranked.offsets[j]);
                COREPRESS_UNROLL
                for (int c = 0; c < kLength; ++c) {
                    rank = Ranks::multiply_add(known[r][c], Ranks::all(ranked.slopes[j * kLength + c]), rank);
                }
                rank = Ranks::replace(rank, kNumber, static_cast<int32_t>(j));
                second[r] = Ranks::lesser(second[r], Ranks::greater(first[r], rank));
                first[r] = Ranks::lesser(first[r], rank);
            }
        }
        float least[kCount], next[kCount];
        memcpy(least, first, sizeof least);
        memcpy(next, second, sizeof next);
        for (int lane = 0; lane < kCount; ++lane) {
            float square = 0;
            for (int c = 0; c < kLength; ++c) {
                const float component = planes[c * stride + i + lane];
                square += component * component;
            }
            const float distance = least[lane] + square;
            if (!(square < kMostSquare)) square = __builtin_nanf("");
            next[lane] -= least[lane] + ((square + (distance > 0 ? distance : 0)) * kMargin + kUnderflow);
            int32_t bits;
            memcpy(&bits, least + lane, sizeof bits);
            codes[i + lane] = static_cast<uint16_t>(bits & kNumber);
        }
        for (int lane = 0; lane < kCount; ++lane) {
            if (!(next[lane] > 0) || !ranked.usual) codes[i + lane] = ranked.nearest(planes + i + lane, stride);
        }
    }
}
#endif

void nearest_codes(const float* planes, const float* weights, int64_t stride, int64_t length, int64_t count,
                   const float* entries, int64_t entry_count, uint16_t* codes, float* distances) {
#if defined(COREPRESS_RANKS_ENTRIES)
    if (weights == nullptr && entry_count > 1 && entry_count <= kMostCodes) {
        const auto run = [&](auto kernel) { kernel(planes, stride, count, entries, entry_count, codes); };
        if (length == 2) return run(nearest_codes_of<2>);
        if (length == 4) return run(nearest_codes_of<4>);
        if (length == 8) return run(nearest_codes_of<8>);
    }
#endif
    assign_vectors(planes, weights, stride, length, count, entries, entry_count, codes, distances);
}
