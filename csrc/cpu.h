// What the CPU kernels share: instruction sets, chosen at run time, and 16-bit numbers.
#pragma once

#include <c10/util/BFloat16.h>

#include "recurrence.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define SRU_X86
#define SRU_AVX2 __attribute__((target("avx2,fma")))
#if defined(__clang__)
#define SRU_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#else
#define SRU_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")))
#endif
#endif

namespace sru {

SRU_INLINE float load(const float* p) {
  return *p;
}
SRU_INLINE double load(const double* p) {
  return *p;
}
SRU_INLINE float load(const c10::BFloat16* p) {
  return bit_cast<float>(uint32_t(p->x) << 16);
}

SRU_INLINE void store(float* p, float value) {
  *p = value;
}
SRU_INLINE void store(double* p, double value) {
  *p = value;
}
SRU_INLINE void store(c10::BFloat16* p, float value) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
  p->x = uint16_t(value != value ? 0x7fc0 : rounded);
}

#ifdef SRU_X86
template <typename F>
SRU_AVX512 void run_avx512(const F& loop) {
  loop();
}

template <typename F>
SRU_AVX2 void run_avx2(const F& loop) {
  loop();
}
#endif

// Run a loop, an always-inlined callable that the compiler vectorises, with the best instructions
// this machine has.
template <typename F>
void run_best(const F& loop) {
#ifdef SRU_X86
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return run_avx512(loop);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return run_avx2(loop);
  }
#endif
  loop();
}

}  // namespace sru
