// Bit masks of what survives pruning, and the survivors.

inline int count_ones(uint64_t word) { return __builtin_popcountll(word); }

// The mask bits [0, count) as a word, for count <= 64, without reading past the last byte that holds them.
inline uint64_t load_mask(const uint8_t* mask, int64_t count) {
    uint64_t word = 0;
    memcpy(&word, mask, static_cast<size_t>((count + 7) / 8));
    return count >= 64 ? word : word & ((uint64_t{1} << count) - 1);
}

int64_t count_bits(const uint8_t* mask, int64_t count) {
    int64_t ones = 0;
    for (int64_t i = 0; i < count; i += 64)
        ones += count_ones(load_mask(mask + i / 8, count - i < 64 ? count - i : 64));
    return ones;
}

template <typename Bits>
int64_t mask_above(const Bits* values, int64_t count, Bits threshold, uint8_t* mask) {
    int64_t ones = 0;
    for (int64_t i = 0; i < count; i += 64) {
        const int64_t length = count - i < 64 ? count - i : 64;
        uint8_t above[64] = {};
        for (int64_t j = 0; j < length; ++j) {
            above[j] = (values[i + j] & Format<Bits>::kMagnitude) > threshold ? 1 : 0;
        }
        uint8_t bits[8];
        pack_width<1>(above, 64, bits);
        ones += count_ones(load_word(bits));
        memcpy(mask + i / 8, bits, static_cast<size_t>((length + 7) / 8));
    }
    return ones;
}

template <typename Bits>
int64_t compact(const Bits* values, int64_t count, const uint8_t* mask, Bits* kept) {
    Bits* out = kept;
    for (int64_t i = 0; i < count; i += 64) {
        uint64_t word = load_mask(mask + i / 8, count - i < 64 ? count - i : 64);
        for (; word != 0; word &= word - 1) *out++ = values[i + __builtin_ctzll(word)];
    }
    return out - kept;
}

template <typename Bits>
int64_t expand(const Bits* kept, const uint8_t* mask, int64_t count, Bits* values) {
    const Bits* in = kept;
    memset(values, 0, static_cast<size_t>(count) * sizeof(Bits));
    for (int64_t i = 0; i < count; i += 64) {
        uint64_t word = load_mask(mask + i / 8, count - i < 64 ? count - i : 64);
        for (; word != 0; word &= word - 1) values[i + __builtin_ctzll(word)] = *in++;
    }
    return in - kept;
}
