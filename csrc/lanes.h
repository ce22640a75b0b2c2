// Sums and maxima over arrays, by partial results that the compiler keeps in the lanes of vectors.
#pragma once

#include "cpu.h"

namespace sru {

constexpr int64_t kLanes = 16;

// The sum of 2 * half numbers, left in the first.
template <int64_t half, typename S>
SRU_INLINE void add_upper(S* sums) {
  for (int64_t lane = 0; lane < half; ++lane) {
    sums[lane] += sums[lane + half];
  }
  if constexpr (half > 1) {
    add_upper<half / 2>(sums);
  }
}

// The sum of term(i) for i in [0, n).
template <typename F>
SRU_INLINE float sum_over(int64_t n, const F& term) {
  float sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      sums[lane] += term(i + lane);
    }
  }
  for (int64_t lane = 0; i + lane < n; ++lane) {
    sums[lane] += term(i + lane);
  }
  add_upper<kLanes / 2>(sums);
  return sums[0];
}

}  // namespace sru
