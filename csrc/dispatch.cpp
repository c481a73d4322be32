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
// Clang's __builtin_cpu_supports does not know this one.
bool has_f16c() {
    unsigned int a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

std::vector<const KernelTable*> runnable() {
    std::vector<const KernelTable*> tables{&kernels_baseline};
#ifdef COREPRESS_X86_LEVELS
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                      __builtin_cpu_supports("popcnt") && has_f16c();
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
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
