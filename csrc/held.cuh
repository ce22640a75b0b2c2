// V adjacent values, between memory and registers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "recurrence.h"
#include "warp.cuh"

namespace sru {

// V values in registers, 16-bit ones in a word that the compiler does not take apart.
template <typename T, int V>
struct alignas(V * sizeof(T)) Held {
  T at[V];
};
template <int V>
struct Held<__half, V> {
  uint32_t word;
};
template <int V>
struct Held<__nv_bfloat16, V> {
  uint32_t word;
};

// A lane's V values of the row that starts at `row`.
template <typename T, int V>
SRU_INLINE Held<T, V> hold(const char* row, int lane) {
  if constexpr (sizeof(T) > 2) {
    return reinterpret_cast<const Held<T, V>*>(row)[lane];
  } else if constexpr (V == 2) {
    return {reinterpret_cast<const uint32_t*>(row)[lane]};
  } else {
    return {warp::load_16_bits(reinterpret_cast<const uint16_t*>(row) + lane)};
  }
}

template <typename T, int V>
SRU_INLINE void widen(const Held<T, V>& in, T (&out)[V]) {
  for (int i = 0; i < V; ++i) {
    out[i] = in.at[i];
  }
}
template <int V>
SRU_INLINE void widen(const Held<__half, V>& in, float (&out)[V]) {
  const float2 both = __half22float2(bit_cast<__half2>(in.word));
  out[0] = both.x;
  if constexpr (V == 2) {
    out[1] = both.y;
  }
}
template <int V>
SRU_INLINE void widen(const Held<__nv_bfloat16, V>& in, float (&out)[V]) {
  out[0] = bit_cast<float>(in.word << 16);
  if constexpr (V == 2) {
    out[1] = bit_cast<float>(in.word & 0xffff0000u);
  }
}

// Not casts: PyTorch compiles with -D__CUDA_NO_HALF_CONVERSIONS__ and the like.
SRU_INLINE void narrow(float value, __half& out) {
  out = __float2half_rn(value);
}
SRU_INLINE void narrow(float value, __nv_bfloat16& out) {
  out = __float2bfloat16_rn(value);
}
template <typename S>
SRU_INLINE void narrow(S value, S& out) {
  out = value;
}

SRU_INLINE __half2 pair(const float (&values)[2], Held<__half, 2>) {
  return __floats2half2_rn(values[0], values[1]);
}
SRU_INLINE __nv_bfloat162 pair(const float (&values)[2], Held<__nv_bfloat16, 2>) {
  return __floats2bfloat162_rn(values[0], values[1]);
}

template <int V, typename T>
SRU_INLINE void store(T* to, const State<T> (&values)[V]) {
  if constexpr (V == 1) {
    narrow(values[0], to[0]);
  } else if constexpr (sizeof(T) > 2) {
    *reinterpret_cast<Held<T, V>*>(to) = {{values[0], values[1]}};
  } else {
    *reinterpret_cast<uint32_t*>(to) = bit_cast<uint32_t>(pair(values, Held<T, 2>()));
  }
}

}  // namespace sru
