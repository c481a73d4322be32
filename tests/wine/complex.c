/* Functions of complex numbers that NumPy calls and the C library of Wine 8 lacks, for structures as Windows has them.
   A `long double` is a `double` there. */
#include <complex.h>

typedef struct {
    float re, im;
} Single;
typedef struct {
    double re, im;
} Double;

#define TO_REAL(name, number, real, function)   \
    real shim_##name(number value) {            \
        union {                                 \
            number parts;                       \
            real _Complex whole;                \
        } z = {value};                          \
        return function(z.whole);               \
    }
#define TO_COMPLEX(name, number, real, function) \
    number shim_##name(number value) {           \
        union {                                  \
            number parts;                        \
            real _Complex whole;                 \
        } z = {value};                           \
        z.whole = function(z.whole);             \
        return z.parts;                          \
    }
#define POWER(name, number, real, function)          \
    number shim_##name(number value, number power) { \
        union {                                      \
            number parts;                            \
            real _Complex whole;                     \
        } z = {value}, w = {power};                  \
        z.whole = function(z.whole, w.whole);        \
        return z.parts;                              \
    }
#define EACH(kind, name)                      \
    kind(name, Double, double, name)          \
    kind(name##f, Single, float, name##f)     \
    kind(name##l, Double, double, name)

EACH(TO_REAL, cabs)
EACH(TO_REAL, carg)
EACH(TO_REAL, cimag)
EACH(TO_REAL, creal)
EACH(TO_COMPLEX, ccos)
EACH(TO_COMPLEX, ccosh)
EACH(TO_COMPLEX, cexp)
EACH(TO_COMPLEX, csin)
EACH(TO_COMPLEX, csinh)
EACH(TO_COMPLEX, ctan)
EACH(TO_COMPLEX, ctanh)
EACH(POWER, cpow)
