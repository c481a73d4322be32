// Chooses among the levels that CMake compiled (COREPRESS_X86_LEVELS says whether there are several).
#include "dispatch.h"

#include <atomic>
#include <cstdlib>

#include "core/require.h"

#ifdef COREPRESS_X86_LEVELS
#include <cpuid.h>
#endif

namespace corepress {

extern const KernelTable kernels_baseline;
#ifdef COREPRESS_X86_LEVELS
extern const KernelTable kernels_avx2;
extern const KernelTable kernels_avx512;
#endif

namespace {

#ifdef COREPRESS_X86_LEVELS
// Asked of the processor itself: __builtin_cpu_supports does not know every feature with every compiler, and needs a
// library that clang-cl does not link.
struct Registers {
    unsigned int a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned int leaf) {
    Registers result;
    __get_cpuid_count(leaf, 0, &result.a, &result.b, &result.c, &result.d);
    return result;
}

// Of the registers that the system saves when it changes between threads.
unsigned int saved_registers() {
    unsigned int low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

bool has(unsigned int features, unsigned int all) { return (features & all) == all; }
#endif

std::vector<const KernelTable*> runnable() {
    std::vector<const KernelTable*> tables{&kernels_baseline};
#ifdef COREPRESS_X86_LEVELS
    const Registers first = cpuid(1), extended = cpuid(7);
    if (!has(first.c, bit_OSXSAVE)) return tables;
    const unsigned int saved = saved_registers(), ymm = 0x6, zmm = 0xe6;
    const bool avx2 = has(saved, ymm) && has(first.c, bit_AVX | bit_FMA | bit_F16C | bit_POPCNT) &&
                      has(extended.b, bit_AVX2 | bit_BMI | bit_BMI2);
    const bool avx512 =
        avx2 && has(saved, zmm) && has(extended.b, bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ);
    if (avx2) tables.push_back(&kernels_avx2);
    if (avx512) tables.push_back(&kernels_avx512);
#endif
    return tables;
}

const KernelTable& find(const std::string& level, const char* setting) {
    std::string known;
    for (const KernelTable* table : runnable()) {
        if (level == table->level) return *table;
        known += (known.empty() ? "" : ", ") + std::string(table->level);
    }
    require(false, setting, " must be one that this machine can run (", known, "), not '", level, "'");
    return kernels_baseline;
}

std::atomic<const KernelTable*>& current() {
    static std::atomic<const KernelTable*> table = [] {
        const char* forced = std::getenv("COREPRESS_SIMD");
        return forced != nullptr && *forced != '\0' ? &find(forced, "COREPRESS_SIMD") : runnable().back();
    }();
    return table;
}

}  // namespace

std::vector<std::string> simd_levels() {
    std::vector<std::string> names;
    for (const KernelTable* table : runnable()) names.emplace_back(table->level);
    return names;
}

const KernelTable& kernels() { return *current().load(std::memory_order_acquire); }

void set_simd_level(const std::string& level) {
    current().store(&find(level, "simd level"), std::memory_order_release);
}

}  // namespace corepress
