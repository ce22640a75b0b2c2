// Vectors, and sums over arrays by partial results that the compiler keeps in their lanes.
#pragma once

#include <algorithm>
#include <limits>

#include "cpu.h"

namespace sru {

constexpr int64_t kLanes = 16;

// `bytes` bytes of numbers of type S; the compiler splits what the machine has no registers for.
template <typename S, int64_t bytes = 64>
struct Vector {
  typedef S Lanes __attribute__((vector_size(bytes)));
};

template <typename T, typename Lanes>
SRU_INLINE void load_lanes(const T* p, Lanes& lanes) {
  memcpy(&lanes, p, sizeof(lanes));
}

template <typename Lanes>
SRU_INLINE void load_lanes(const c10::BFloat16* p, Lanes& lanes) {
  constexpr int64_t bytes = sizeof(Lanes);
  typename Vector<uint16_t, bytes / 2>::Lanes shorts;
  memcpy(&shorts, p, sizeof(shorts));
  const auto words = __builtin_convertvector(shorts, typename Vector<uint32_t, bytes>::Lanes) << 16;
  memcpy(&lanes, &words, sizeof(lanes));
}

// Of twice as many numbers those in even and those in odd places, which is faster than in order.
template <typename Lanes>
SRU_INLINE void load_pairs(const c10::BFloat16* p, Lanes& even, Lanes& odd) {
  typename Vector<uint32_t, sizeof(Lanes)>::Lanes words;
  memcpy(&words, p, sizeof(words));
  const auto low = words << 16, high = words & 0xffff0000u;
  memcpy(&even, &low, sizeof(low));
  memcpy(&odd, &high, sizeof(high));
}

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
template <typename S = float, typename F>
SRU_INLINE S sum_over(int64_t n, const F& term) {
  S sums[kLanes] = {};
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

// The greatest of n numbers, NaN left out; minus infinity if there is none.
template <typename T>
SRU_INLINE State<T> greatest(const T* x, int64_t n) {
  using S = State<T>;
  using Lanes = typename Vector<S>::Lanes;
  constexpr int64_t lanes = sizeof(Lanes) / sizeof(S);
  S result = -std::numeric_limits<S>::infinity();
  Lanes most = result - Lanes{};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    Lanes values;
    load_lanes(x + i, values);
    most = most < values ? values : most;
  }
  for (int64_t lane = 0; lane < lanes; ++lane) {
    result = std::max(result, S(most[lane]));
  }
  for (; i < n; ++i) {
    result = std::max(result, load(x + i));
  }
  return result;
}

}  // namespace sru
