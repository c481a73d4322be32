// Codes of 1 to 8 bits into one stream of bits, and back.
//
// Eight codes are one 64-bit word, one code a byte. Three folds halve the gaps between them:
//   bytes  ...0000bbbb 0000aaaa   ->  16-bit lanes  ...bbbbaaaa  ->  32-bit lanes  ->  the lowest 8 * nbits bits
// These are the stream's next bytes, least significant bit first. With the most significant bit first, codes enter in
// reverse order, so that the first stands highest, and the bytes leave in reverse order.

inline uint64_t load_word(const uint8_t* bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

template <int nbits>
constexpr uint64_t kCodeBits = ((uint64_t{1} << nbits) - 1) * 0x0101010101010101u;

template <int nbits>
inline uint64_t fold_codes(uint64_t word) {
    if constexpr (nbits == 1) {  // bit 8i lands on bit 56 + i, and none carries
        return (word & 0x0101010101010101u) * 0x0102040810204080u >> 56;
    }
    constexpr uint64_t kCode = ((uint64_t{1} << nbits) - 1) * 0x0001000100010001u;
    word = (word & kCode) | ((word & kCode << 8) >> (8 - nbits));
    word = (word & 0x0000ffff0000ffffu) | ((word & 0xffff0000ffff0000u) >> (16 - 2 * nbits));
    return (word & 0x00000000ffffffffu) | ((word >> 32) << (4 * nbits));
}

template <int nbits>
inline uint64_t unfold_codes(uint64_t word) {
    constexpr uint64_t kQuad = (uint64_t{1} << (4 * nbits)) - 1;
    constexpr uint64_t kPair = ((uint64_t{1} << (2 * nbits)) - 1) * 0x0000000100000001u;
    constexpr uint64_t kCode = ((uint64_t{1} << nbits) - 1) * 0x0001000100010001u;
    word = (word & kQuad) | ((word >> (4 * nbits) & kQuad) << 32);
    word = (word & kPair) | ((word >> (2 * nbits) & kPair) << 16);
    return (word & kCode) | ((word >> nbits & kCode) << 8);
}

// Several codes that make one byte, as one integer: loops over these are vectorized.
template <typename Codes, int nbits>
inline uint8_t byte_of_codes(const uint8_t* codes) {
    constexpr int kCodes = static_cast<int>(sizeof(Codes));
    constexpr unsigned kMask = (1u << nbits) - 1;
    Codes word;
    memcpy(&word, codes, sizeof word);
    unsigned byte = 0;
    for (int i = 0; i < kCodes; ++i) byte |= (unsigned{word} >> (8 * i) & kMask) << (nbits * i);
    return static_cast<uint8_t>(byte);
}

template <typename Codes, int nbits>
inline void codes_of_byte(uint8_t byte, uint8_t* codes) {
    constexpr Codes kMask = static_cast<Codes>(kCodeBits<nbits>);
    Codes word = byte;
    for (int i = 1; i < static_cast<int>(sizeof(Codes)); ++i) {
        word = static_cast<Codes>(word | Codes{byte} << ((8 - nbits) * i));
    }
    word &= kMask;
    memcpy(codes, &word, sizeof word);
}

template <int nbits, bool kBig>
inline uint64_t pack_word(uint64_t codes) {
    if constexpr (kBig) return __builtin_bswap64(fold_codes<nbits>(__builtin_bswap64(codes)) << (64 - 8 * nbits));
    return fold_codes<nbits>(codes);
}

template <int nbits, bool kBig>
inline uint64_t unpack_word(uint64_t bits) {
    if constexpr (kBig) return __builtin_bswap64(unfold_codes<nbits>(__builtin_bswap64(bits) >> (64 - 8 * nbits)));
    return unfold_codes<nbits>(bits);
}

template <int nbits, bool kBig>
void pack_words(const uint8_t* codes, int64_t words, uint8_t* packed) {
    if constexpr (nbits == 4 && !kBig) {
        for (int64_t i = 0; i < 4 * words; ++i) packed[i] = byte_of_codes<uint16_t, 4>(codes + 2 * i);
    } else if constexpr (nbits == 2 && !kBig) {
        for (int64_t i = 0; i < 2 * words; ++i) packed[i] = byte_of_codes<uint32_t, 2>(codes + 4 * i);
    } else {
        int64_t i = 0;
        for (; nbits == 1 && !kBig && i + 8 <= words; i += 8) {
            const uint64_t bits = lowest_bits(codes + 8 * i);
            memcpy(packed + i, &bits, sizeof bits);
        }
#if defined(COREPRESS_PACKS_REGISTERS)
        for (; nbits * i + kStreamOfRegister<nbits> <= nbits * words; i += kWordsOfRegister) {
            pack_register<nbits, kBig>(codes + 8 * i, packed + nbits * i);
        }
#endif
        // Whole words are stored where others follow, which overwrite what is too much.
        for (; nbits * i + 8 <= nbits * words; ++i) {
            const uint64_t bits = pack_word<nbits, kBig>(load_word(codes + 8 * i));
            memcpy(packed + nbits * i, &bits, sizeof bits);
        }
        for (; i < words; ++i) {
            const uint64_t bits = pack_word<nbits, kBig>(load_word(codes + 8 * i));
            memcpy(packed + nbits * i, &bits, nbits);
        }
    }
}

// `bytes` can be read.
template <int nbits, bool kBig>
void unpack_words(const uint8_t* packed, int64_t bytes, int64_t words, uint8_t* codes) {
    if constexpr (nbits == 4 && !kBig) {
        for (int64_t i = 0; i < 4 * words; ++i) codes_of_byte<uint16_t, 4>(packed[i], codes + 2 * i);
    } else if constexpr (nbits == 2 && !kBig) {
        for (int64_t i = 0; i < 2 * words; ++i) codes_of_byte<uint32_t, 2>(packed[i], codes + 4 * i);
    } else {
        int64_t i = 0;
#if defined(COREPRESS_PACKS_REGISTERS)
        for (; i + kWordsOfRegister <= words && nbits * i + kStreamOfRegister<nbits> <= bytes; i += kWordsOfRegister) {
            unpack_register<nbits, kBig>(packed + nbits * i, codes + 8 * i);
        }
#endif
        // Whole words are loaded where there are bytes behind: putting one together from fewer takes four times as
        // long.
        for (; i < words && nbits * i + 8 <= bytes; ++i) {
            const uint64_t word = unpack_word<nbits, kBig>(load_word(packed + nbits * i));
            memcpy(codes + 8 * i, &word, sizeof word);
        }
        for (; i < words; ++i) {
            uint64_t bits = 0;
            memcpy(&bits, packed + nbits * i, nbits);
            const uint64_t word = unpack_word<nbits, kBig>(bits);
            memcpy(codes + 8 * i, &word, sizeof word);
        }
    }
}

template <int nbits, bool kBig = false>
void pack_width(const uint8_t* codes, int64_t count, uint8_t* packed) {
    const int64_t words = count / 8;
    pack_words<nbits, kBig>(codes, words, packed);
    const int tail = static_cast<int>(count % 8);
    if (tail == 0) return;
    uint8_t last[8] = {};
    memcpy(last, codes + 8 * words, static_cast<size_t>(tail));
    const uint64_t bits = pack_word<nbits, kBig>(load_word(last));
    memcpy(packed + nbits * words, &bits, static_cast<size_t>((tail * nbits + 7) / 8));
}

template <int nbits, bool kBig = false>
void unpack_width(const uint8_t* packed, int64_t count, uint8_t* codes) {
    const int64_t words = count / 8;
    unpack_words<nbits, kBig>(packed, (count * nbits + 7) / 8, words, codes);
    const int tail = static_cast<int>(count % 8);
    if (tail == 0) return;
    uint64_t bits = 0;
    memcpy(&bits, packed + nbits * words, static_cast<size_t>((tail * nbits + 7) / 8));
    const uint64_t word = unpack_word<nbits, kBig>(bits);
    memcpy(codes + 8 * words, &word, static_cast<size_t>(tail));
}

template <bool kBig>
void pack_any(const uint8_t* codes, int64_t count, int nbits, uint8_t* packed) {
    switch (nbits) {
        case 1: return pack_width<1, kBig>(codes, count, packed);
        case 2: return pack_width<2, kBig>(codes, count, packed);
        case 3: return pack_width<3, kBig>(codes, count, packed);
        case 4: return pack_width<4, kBig>(codes, count, packed);
        case 5: return pack_width<5, kBig>(codes, count, packed);
        case 6: return pack_width<6, kBig>(codes, count, packed);
        case 7: return pack_width<7, kBig>(codes, count, packed);
        default: memcpy(packed, codes, static_cast<size_t>(count));
    }
}

template <bool kBig>
void unpack_any(const uint8_t* packed, int64_t count, int nbits, uint8_t* codes) {
    switch (nbits) {
        case 1: return unpack_width<1, kBig>(packed, count, codes);
        case 2: return unpack_width<2, kBig>(packed, count, codes);
        case 3: return unpack_width<3, kBig>(packed, count, codes);
        case 4: return unpack_width<4, kBig>(packed, count, codes);
        case 5: return unpack_width<5, kBig>(packed, count, codes);
        case 6: return unpack_width<6, kBig>(packed, count, codes);
        case 7: return unpack_width<7, kBig>(packed, count, codes);
        default: memcpy(codes, packed, static_cast<size_t>(count));
    }
}

uint8_t merge_codes(const uint8_t* codes, int64_t count, uint8_t offset) {
    uint8_t merged = 0;
    for (int64_t i = 0; i < count; ++i) merged = static_cast<uint8_t>(merged | static_cast<uint8_t>(codes[i] + offset));
    return merged;
}

void extend_signs(uint8_t* codes, int64_t count, int nbits) {
    const uint8_t sign = static_cast<uint8_t>(1u << (nbits - 1));
    for (int64_t i = 0; i < count; ++i) codes[i] = static_cast<uint8_t>((codes[i] ^ sign) - sign);
}
