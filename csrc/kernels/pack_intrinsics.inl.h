// Codes into bits and back, thirty-two at a time: the two 128-bit lanes of a register hold sixteen each.
//
// Not by the instructions that extract and deposit bits: they take one word of eight codes, and processors before Zen 3
// need hundreds of cycles for it.

#if defined(__AVX2__)
#define COREPRESS_PACKS_REGISTERS
constexpr int kCodesOfLane = 16;
constexpr int64_t kWordsOfRegister = 4;  // of eight codes
constexpr uint8_t kNoByte = 0x80;

// What one reads or writes of a stream: 16 bytes of each lane, of which the first 2 * nbits are its own.
template <int nbits>
constexpr int64_t kStreamOfRegister = 2 * nbits + 16;

// The bytes that a lane's two words of codes leave.
template <int nbits, bool kBig>
struct PackedBytes {
    alignas(16) uint8_t places[kCodesOfLane] = {};

    constexpr PackedBytes() {
        for (int i = 0; i < kCodesOfLane; ++i) {
            const int word = i / nbits, byte = i % nbits;
            places[i] = word > 1 ? kNoByte : static_cast<uint8_t>(8 * word + (kBig ? nbits - 1 - byte : byte));
        }
    }
};

// Pairs, fours and eights are put together by multiplying and adding. Of the bytes written, those behind the first
// 4 * nbits mean nothing.
template <int nbits, bool kBig>
inline void pack_register(const uint8_t* codes, uint8_t* packed) {
    static constexpr PackedBytes<nbits, kBig> kBytes;
    constexpr int kCode = (1 << nbits) - 1, kFirst = kBig ? 1 << nbits : 1, kSecond = kBig ? 1 : 1 << nbits;
    const __m256i loaded = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
    const __m256i known = _mm256_and_si256(loaded, _mm256_set1_epi8(kCode));
    const __m256i of_pairs = _mm256_set1_epi16(static_cast<int16_t>(kFirst | kSecond << 8));
    const __m256i of_fours = _mm256_set1_epi32(kFirst * kFirst | kSecond * kSecond << 16);
    const __m256i fours = _mm256_madd_epi16(_mm256_maddubs_epi16(of_pairs, known), of_fours);
    const __m256i upper = _mm256_srli_epi64(fours, 32);
    const __m256i words = kBig ? _mm256_or_si256(_mm256_slli_epi64(fours, 4 * nbits), upper)
                               : _mm256_or_si256(_mm256_and_si256(fours, _mm256_set1_epi64x(0xffffffff)),
                                                 _mm256_slli_epi64(upper, 4 * nbits));
    const __m256i bytes = _mm256_shuffle_epi8(words, load_both_lanes(kBytes.places));
    store_bytes(_mm256_castsi256_si128(bytes), packed);
    store_bytes(_mm256_extracti128_si256(bytes, 1), packed + 2 * nbits);
}

// Where the two bytes stand that hold a code of a lane, and by what to multiply them to have it in its own byte: even
// codes are the upper half of the product, odd ones the upper byte of the lower half.
template <int nbits, bool kBig>
struct UnpackedCodes {
    alignas(16) uint8_t places[2][kCodesOfLane] = {};
    alignas(16) uint16_t factors[2][kCodesOfLane / 2] = {};

    constexpr UnpackedCodes() {
        for (int code = 0; code < kCodesOfLane; ++code) {
            const int odd = code % 2, at = code / 2, first = code * nbits / 8, from = code * nbits % 8;
            const bool spans = from + nbits > 8;
            // Its lowest bit within the byte that it stands in, or within both.
            int lowest = kBig ? (spans ? 16 : 8) - from - nbits : from;
            int lower = kBig && spans ? first + 1 : first, upper = kBig ? first : first + 1;
            if (!spans) upper = kNoByte;
            if (odd == 0 && lowest == 0) {  // the upper half of a product has nothing for a factor of 2^16
                upper = lower;
                lower = kNoByte;
                lowest = 8;
            }
            places[odd][2 * at] = static_cast<uint8_t>(lower);
            places[odd][2 * at + 1] = static_cast<uint8_t>(upper);
            factors[odd][at] = static_cast<uint16_t>(1u << (odd == 0 ? 16 - lowest : 8 - lowest));
        }
    }
};

template <int nbits, bool kBig>
inline void unpack_register(const uint8_t* packed, uint8_t* codes) {
    static constexpr UnpackedCodes<nbits, kBig> kCodes;
    constexpr int kCode = (1 << nbits) - 1;
    const __m256i bytes =
        _mm256_inserti128_si256(_mm256_castsi128_si256(load_bytes(packed)), load_bytes(packed + 2 * nbits), 1);
    const __m256i even = _mm256_mulhi_epu16(_mm256_shuffle_epi8(bytes, load_both_lanes(kCodes.places[0])),
                                            load_both_lanes(kCodes.factors[0]));
    const __m256i odd = _mm256_mullo_epi16(_mm256_shuffle_epi8(bytes, load_both_lanes(kCodes.places[1])),
                                           load_both_lanes(kCodes.factors[1]));
    const __m256i of_even = _mm256_set1_epi16(kCode), of_odd = _mm256_set1_epi16(static_cast<int16_t>(kCode << 8));
    const __m256i both = _mm256_or_si256(_mm256_and_si256(even, of_even), _mm256_and_si256(odd, of_odd));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), both);
}
#endif
