// The values that were counted, as points on a line.

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
