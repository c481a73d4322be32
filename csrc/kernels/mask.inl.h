// Bit masks of what survives pruning, and the survivors.

inline int count_ones(uint64_t word) { return __builtin_popcountll(word); }

// The mask bits [0, count) as a word, for count <= 64, without reading past the last byte that holds them.
inline uint64_t load_mask(const uint8_t* mask, int64_t count) {
    if (count >= 64) return load_word(mask);
    uint64_t word = 0;
    memcpy(&word, mask, static_cast<size_t>((count + 7) / 8));
    return word & ((uint64_t{1} << count) - 1);
}

int64_t count_bits(const uint8_t* mask, int64_t count) {
    int64_t ones = 0, i = 0;
    for (; i + 64 <= count; i += 64) ones += count_ones(load_word(mask + i / 8));
    return i < count ? ones + count_ones(load_mask(mask + i / 8, count - i)) : ones;
}

// The bits that say where is_one(i), for 64 i.
template <typename IsOne>
inline __attribute__((always_inline)) uint64_t word_where(int64_t begin, const IsOne& is_one) {
    uint8_t bytes[64];
    for (int64_t j = 0; j < 64; ++j) bytes[j] = is_one(begin + j) ? 1 : 0;
    return lowest_bits(bytes);
}

// Writes the mask whose bits say where is_one(i), and returns the ones; word_at(i) gives 64 bits at once.
template <typename WordAt, typename IsOne>
inline __attribute__((always_inline)) int64_t make_mask(int64_t count, uint8_t* mask, const WordAt& word_at,
                                                        const IsOne& is_one) {
    int64_t ones = 0, i = 0;
    for (; i + 64 <= count; i += 64) {
        const uint64_t bits = word_at(i);
        memcpy(mask + i / 8, &bits, sizeof bits);
        ones += count_ones(bits);
    }
    uint8_t bytes[64];
    for (int64_t j = 0; j < count - i; ++j) {
        bytes[j] = is_one(i + j) ? 1 : 0;
        ones += bytes[j];
    }
    pack_width<1>(bytes, count - i, mask + i / 8);
    return ones;
}

template <typename Bits>
inline Bits magnitude_of(Bits value) {
    return value & Format<Bits>::kMagnitude;
}

template <typename Bits>
inline void raise_to_largest(const Bits* values, int64_t count, Bits* largest) {
    Bits most = *largest;
    for (int64_t i = 0; i < count; ++i) {
        const Bits magnitude = magnitude_of(values[i]);
        most = magnitude > most ? magnitude : most;
    }
    *largest = most;
}

// Where 64 magnitudes are above a threshold.
template <typename Bits>
inline uint64_t word_above(const Bits* values, Bits threshold) {
#if defined(__AVX512F__)
    return word_of_lanes_above(values, threshold);
#else
    return word_where(0, [=](int64_t i) __attribute__((always_inline)) { return magnitude_of(values[i]) > threshold; });
#endif
}

template <typename Bits>
int64_t mask_above(const Bits* values, int64_t count, Bits threshold, uint8_t* mask, Bits* largest) {
    int64_t ones = 0;
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t length = count - begin < kTile ? count - begin : kTile;
        const Bits* const tile = values + begin;
        raise_to_largest(tile, length, largest);
        ones += make_mask(
            length,
            mask + begin / 8, [=](int64_t i) __attribute__((always_inline)) { return word_above(tile + i, threshold); },
            [=](int64_t i) __attribute__((always_inline)) { return magnitude_of(tile[i]) > threshold; });
    }
    return ones;
}

// Writes the ones of a full word's values, and up to 64 values in all: four at a time, because a loop whose end only
// the mask tells costs a mispredicted branch for each word.
template <typename Bits>
inline void compact_few(const Bits* values, uint64_t word, Bits* out) {
    constexpr uint64_t kLast = uint64_t{1} << 63;  // something to find when no ones are left
    const int ones = count_ones(word);
    int i = 0;
    do {
        for (int j = 0; j < 4; ++j) {
            out[i + j] = values[__builtin_ctzll(word | kLast)];
            word &= word - 1;
        }
        i += 4;
    } while (i < ones);
}

// It asks for memory ahead of time, since processors that mispredict the end of compact_few forget what they would have
// asked for; the first four of a word are written before that end is looked at, for the same reason.
template <typename Bits>
int64_t take_between(const Bits* values, int64_t count, Bits first, Bits last, Bits* taken, int64_t* below) {
    constexpr int64_t kAhead = 2048;
    int64_t found = 0, from_first = 0, i = 0;
    for (; i + 64 <= count; i += 64) {
        __builtin_prefetch(values + i + kAhead);
        __builtin_prefetch(values + i + kAhead + 32);
        const uint64_t from = first == 0 ? ~uint64_t{0} : word_above(values + i, static_cast<Bits>(first - 1));
        const uint64_t between = from & ~word_above(values + i, last);
        from_first += count_ones(from);
        compact_few(values + i, between, taken + found);
        found += count_ones(between);
    }
    for (; i < count; ++i) {
        const Bits magnitude = magnitude_of(values[i]);
        from_first += magnitude >= first ? 1 : 0;
        if (magnitude >= first && magnitude <= last) taken[found++] = values[i];
    }
    *below += count - from_first;
    return found;
}

// The same for words of any number of ones.
template <typename Bits>
inline void compact_word(const Bits* values, uint64_t word, Bits* out) {
#if defined(COREPRESS_MOVES_BYTES)
    if constexpr (sizeof(Bits) == 2) return move_word(values, word, out);
#endif
#if defined(__AVX512F__)
    for (int part = 0; part < 64; part += 16, word >>= 16) {
        const __mmask16 ones = static_cast<__mmask16>(word);
        store_lanes(_mm512_maskz_compress_epi32(ones, load_lanes(values + part)), out);
        out += count_ones(word & 0xffffu);
    }
#else
    compact_few(values, word, out);
#endif
}

template <typename Bits>
void compact(const Bits* values, int64_t count, const uint8_t* mask, Bits* kept, int64_t kept_count, const Bits* next) {
    constexpr int64_t kLine = 64 / sizeof(Bits);
    const Bits* const end = kept + kept_count;
    for (int64_t i = 0; i < count; i += 64) {
        for (int64_t j = 0; j < 64; j += kLine) __builtin_prefetch(next + i + j, 0, 2);
        const int64_t length = count - i < 64 ? count - i : 64;
        uint64_t word = load_mask(mask + i / 8, length);
        if (length == 64 && end - kept >= 64) {
            compact_word(values + i, word, kept);
            kept += count_ones(word);
            continue;
        }
        for (; word != 0 && kept != end; word &= word - 1) *kept++ = values[i + __builtin_ctzll(word)];
    }
}

template <typename Bits>
void expand(const Bits* kept, int64_t kept_count, const uint8_t* mask, int64_t count, Bits* values) {
    const Bits* const end = kept + kept_count;
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= count && end - kept >= 16; i += 16) {  // it reads 16 values, however many it takes
        const uint64_t word = load_mask(mask + i / 8, 16);
        store_lanes(_mm512_maskz_expand_epi32(static_cast<__mmask16>(word), load_lanes(kept)), values + i);
        kept += count_ones(word);
    }
#elif defined(COREPRESS_MOVES_BYTES)
    if constexpr (sizeof(Bits) == 2) {
        for (; i + 8 <= count && end - kept >= 8; i += 8) {
            move_apart(kept, mask[i / 8], values + i);
            kept += count_ones(mask[i / 8]);
        }
    }
#endif
    memset(values + i, 0, static_cast<size_t>(count - i) * sizeof(Bits));
    for (; i < count; i += 64) {
        uint64_t word = load_mask(mask + i / 8, count - i < 64 ? count - i : 64);
        if (end - kept >= 64) {
            for (; word != 0; word &= word - 1) values[i + __builtin_ctzll(word)] = *kept++;
        } else {
            for (; word != 0 && kept != end; word &= word - 1) values[i + __builtin_ctzll(word)] = *kept++;
        }
    }
}
