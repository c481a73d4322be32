// Codes of values at even distances, with a step and a bias for each run. Codes are found in double, where neither a
// difference nor a quotient of floats overflows or vanishes.

// Of short runs, what belongs to each value of a tile: a loop over a few values would not fill a register.
struct SpreadSteps {
    float scales[kTile];
    float biases[kTile];
};

constexpr int64_t kSpreadBelow = 16;

template <typename Step>
inline __attribute__((always_inline)) void encode_tile(const float* values, int64_t count, const Step& step,
                                                       CodeRange range, uint8_t* codes) {
    const double lowest = static_cast<double>(range.lowest), highest = static_cast<double>(range.highest);
    for (int64_t i = 0; i < count; ++i) {
        const EvenStep of_value = step(i);
        double steps =
            (static_cast<double>(values[i]) - static_cast<double>(of_value.bias)) / static_cast<double>(of_value.scale);
        steps = steps > lowest ? steps : lowest;  // what NaN becomes too
        steps = steps < highest ? steps : highest;
        codes[i] = static_cast<uint8_t>(static_cast<int32_t>(round_to_even(steps)));
    }
}

// One NaN for all: which of two an operation keeps is up to the compiler.
template <typename Code, typename Step>
inline __attribute__((always_inline)) void decode_tile(const uint8_t* codes, int64_t count, const Step& step,
                                                       float* values) {
    for (int64_t i = 0; i < count; ++i) {
        const EvenStep of_value = step(i);
        const float value = static_cast<float>(static_cast<Code>(codes[i])) * of_value.scale + of_value.bias;
        values[i] = value == value ? value : __builtin_nanf("");
    }
}

// Calls tile(offset, count, step) for tiles of runs, where step(i) is what belongs to value offset + i.
template <typename Tile>
inline __attribute__((always_inline)) void for_each_step_tile(int64_t runs, int64_t length, const EvenStep* steps,
                                                              const Tile& tile) {
    if (length >= kSpreadBelow) {
        return for_each_tile(runs, length, [&](int64_t offset, int64_t first, int64_t count, int64_t part) {
            for (int64_t run = 0; run < count; ++run) {
                const EvenStep of_run = steps[first + run];
                tile(offset + run * part, part, [of_run](int64_t) { return of_run; });
            }
        });
    }
    SpreadSteps spread;
    for_each_tile(runs, length, [&](int64_t offset, int64_t first, int64_t count, int64_t part) {
        for (int64_t run = 0, place = 0; run < count; ++run) {
            for (const int64_t end = place + part; place < end; ++place) {
                spread.scales[place] = steps[first + run].scale;
                spread.biases[place] = steps[first + run].bias;
            }
        }
        tile(
            offset, count * part, [&spread](int64_t i) __attribute__((always_inline)) {
                return EvenStep{spread.scales[i], spread.biases[i]};
            });
    });
}

void encode_steps(const uint32_t* values, int64_t runs, int64_t length, const EvenStep* steps, CodeRange range,
                  uint8_t* codes) {
    for_each_step_tile(
        runs, length, steps, [&](int64_t offset, int64_t count, const auto& step) __attribute__((always_inline)) {
            float singles[kTile];
            widen(values + offset, count, singles);
            encode_tile(singles, count, step, range, codes + offset);
        });
}

void decode_steps(const uint8_t* codes, int64_t runs, int64_t length, const EvenStep* steps, bool is_signed,
                  uint32_t* values) {
    for_each_step_tile(
        runs, length, steps, [&](int64_t offset, int64_t count, const auto& step) __attribute__((always_inline)) {
            float singles[kTile];
            if (is_signed) {
                decode_tile<int8_t>(codes + offset, count, step, singles);
            } else {
                decode_tile<uint8_t>(codes + offset, count, step, singles);
            }
            narrow(singles, count, values + offset);
        });
}
