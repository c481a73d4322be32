// Values to the codes of a sorted table, by comparing keys with the cuts between entries, and codes to values.

template <typename Bits, typename Key>
void assign_by_cuts(const Bits* values, int64_t count, const Key* cuts, int cut_count, uint8_t* codes) {
    Key keys[kTile];
    Key above[kTile];
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t length = count - begin < kTile ? count - begin : kTile;
        for (int64_t i = 0; i < length; ++i) {
            keys[i] = key_from_bits(values[begin + i]);
            above[i] = 0;
        }
        for (int j = 0; j < cut_count; ++j) {
            const Key cut = cuts[j];
            for (int64_t i = 0; i < length; ++i) above[i] = static_cast<Key>(above[i] + (keys[i] > cut ? 1 : 0));
        }
        for (int64_t i = 0; i < length; ++i) codes[begin + i] = static_cast<uint8_t>(above[i]);
    }
}

template <typename Bits, typename Key>
void assign_by_search(const Bits* values, int64_t count, const Key* cuts, int cut_count, uint8_t* codes) {
    const int half = (cut_count + 1) / 2;
    for (int64_t i = 0; i < count; ++i) {
        const Key key = key_from_bits(values[i]);
        int code = 0;
        for (int step = half; step > 0; step /= 2) code += key > cuts[code + step - 1] ? step : 0;
        codes[i] = static_cast<uint8_t>(code);
    }
}

template <typename Bits, typename Key>
void assign_by_table(const Bits* values, int64_t count, const uint8_t* first_codes, int span, const Key* cuts,
                     uint8_t* codes) {
    constexpr int kLow = Format<Bits>::kWidth - 16;
    if (span == 0) {
        for (int64_t i = 0; i < count; ++i) codes[i] = first_codes[values[i] >> kLow];
    } else if (span == 1) {
        for (int64_t i = 0; i < count; ++i) {
            const int code = first_codes[values[i] >> kLow];
            codes[i] = static_cast<uint8_t>(code + (key_from_bits(values[i]) > cuts[code] ? 1 : 0));
        }
    } else {
        for (int64_t i = 0; i < count; ++i) {
            const Key key = key_from_bits(values[i]);
            int code = first_codes[values[i] >> kLow];
            for (int step = 0; step < span; ++step) code += key > cuts[code] ? 1 : 0;
            codes[i] = static_cast<uint8_t>(code);
        }
    }
}

#if defined(__AVX512F__)
// Permutations within registers. Values may stand anywhere in memory.
template <typename Bits, int registers>
int64_t look_up_in_registers(const uint8_t* codes, int64_t count, const void* lut, int entries, void* values) {
    constexpr int kCount = Lanes<sizeof(Bits)>::kCount;
    Bits whole[registers * kCount] = {};
    memcpy(whole, lut, static_cast<size_t>(entries) * sizeof(Bits));
    __m512i table[registers];
    for (int i = 0; i < registers; ++i) table[i] = _mm512_loadu_si512(whole + i * kCount);
    char* const to = static_cast<char*>(values);
    int64_t i = 0;
    for (; i + kCount <= count; i += kCount) {
        _mm512_storeu_si512(to + i * static_cast<int64_t>(sizeof(Bits)),
                            select<Bits, registers>(Lanes<sizeof(Bits)>::load_codes(codes + i), table));
    }
    return i;
}

// Returns how many values it did: none where the table fits no registers or there are few codes.
template <typename Bits>
int64_t look_up_in_registers(const uint8_t* codes, int64_t count, const void* lut, int entries, void* values) {
    constexpr int kCount = Lanes<sizeof(Bits)>::kCount;
    if (count < 2 * kCount) return 0;
    if (entries <= kCount) return look_up_in_registers<Bits, 1>(codes, count, lut, entries, values);
    if (entries <= 2 * kCount) return look_up_in_registers<Bits, 2>(codes, count, lut, entries, values);
    if (entries <= 4 * kCount) return look_up_in_registers<Bits, 4>(codes, count, lut, entries, values);
    if (entries <= 8 * kCount) return look_up_in_registers<Bits, 8>(codes, count, lut, entries, values);
    return 0;
}
#endif

#if defined(COREPRESS_LOOKS_UP_BYTES)
template <typename Bits, int kTables>
int64_t look_up_in_bytes(const uint8_t* codes, int64_t count, const void* lut, int entries, void* values) {
    constexpr int kCodes = ByteTables<kTables>::kCodes;
    uint8_t lower[16 * kTables] = {}, upper[16 * kTables] = {};
    for (int j = 0; j < entries; ++j) {
        Bits entry;
        memcpy(&entry, static_cast<const char*>(lut) + j * static_cast<int>(sizeof entry), sizeof entry);
        lower[j] = static_cast<uint8_t>(entry & 0xff);
        upper[j] = static_cast<uint8_t>(entry >> 8);
    }
    const ByteTables<kTables> of_lower(lower), of_upper(upper);
    int64_t i = 0;
    for (; i + kCodes <= count; i += kCodes) {
        look_up_codes(codes + i, of_lower, of_upper, static_cast<char*>(values) + 2 * i);
    }
    return i;
}

template <typename Bits>
int64_t look_up_in_registers(const uint8_t* codes, int64_t count, const void* lut, int entries, void* values) {
    if (sizeof(Bits) != 2 || count < 2 * ByteTables<1>::kCodes) return 0;
    if (entries <= 16) return look_up_in_bytes<Bits, 1>(codes, count, lut, entries, values);
    if (entries <= 32) return look_up_in_bytes<Bits, 2>(codes, count, lut, entries, values);
    if (entries <= 64) return look_up_in_bytes<Bits, 4>(codes, count, lut, entries, values);
    return 0;
}
#endif

template <typename Bits>
void look_up(const uint8_t* codes, int64_t count, const Bits* lut, int entries, Bits* values) {
    int64_t i = 0;
#if defined(__AVX512F__) || defined(COREPRESS_LOOKS_UP_BYTES)
    i = look_up_in_registers<Bits>(codes, count, lut, entries, values);
#else
    static_cast<void>(entries);
#endif
    for (; i < count; ++i) values[i] = lut[codes[i]];
}
