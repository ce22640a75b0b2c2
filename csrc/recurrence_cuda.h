// What the forward and the backward CUDA kernel share. A thread owns V adjacent channels of one
// batch element and walks through time alone; a ring of kStages steps in shared memory is filled
// ahead of it with asynchronous copies. Nothing is exchanged between threads, so the ring needs no
// barrier. Blocks are one warp, to spread over all SMs.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include "recurrence.h"

namespace sru {

// The CUDA kernels, for float, double, __half and __nv_bfloat16. B and D must not be 0.
template <typename T>
cudaError_t forward_cuda(const Forward<T>& args, cudaStream_t stream);
template <typename T>
cudaError_t backward_cuda(const Backward<T>& args, cudaStream_t stream);

constexpr int kThreads = 32;
constexpr int kStages = 16;  // a power of two

template <typename T, int V>
struct alignas(V * sizeof(T)) Pack {
  T at[V];
};

SRU_INLINE float widen(__half value) {
  return __half2float(value);
}
SRU_INLINE float widen(__nv_bfloat16 value) {
  return __bfloat162float(value);
}
SRU_INLINE float widen(float value) {
  return value;
}
SRU_INLINE double widen(double value) {
  return value;
}

SRU_INLINE void narrow(float value, __half& out) {
  out = __float2half_rn(value);
}
SRU_INLINE void narrow(float value, __nv_bfloat16& out) {
  out = __float2bfloat16_rn(value);
}
SRU_INLINE void narrow(float value, float& out) {
  out = value;
}
SRU_INLINE void narrow(double value, double& out) {
  out = value;
}

template <int V, typename T>
SRU_INLINE Pack<T, V>* pack(T* p) {
  return reinterpret_cast<Pack<T, V>*>(p);
}
template <int V, typename T>
SRU_INLINE const Pack<T, V>* pack(const T* p) {
  return reinterpret_cast<const Pack<T, V>*>(p);
}

// Copies one value from global to shared memory; asynchronous from sm_80 on, for 4, 8 and 16 bytes.
template <typename P>
SRU_INLINE void fetch(P* shared, const P* global) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (sizeof(P) >= 4) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(
                     static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
                 "l"(global), "n"(sizeof(P))
                 : "memory");
    return;
  }
#endif
  *shared = *global;
}

SRU_INLINE void fetch_end_stage() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until all but the latest kStages - 1 stages have arrived.
SRU_INLINE void fetch_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 1) : "memory");
#endif
}

// Asynchronous copies move no single byte: a pad flag is fetched with the aligned word around it.
SRU_INLINE const uint32_t* pad_word(const bool* pad) {
  return reinterpret_cast<const uint32_t*>(reinterpret_cast<uintptr_t>(pad) & ~uintptr_t(3));
}
SRU_INLINE bool pad_flag(const bool* pad, uint32_t word) {
  return word >> (reinterpret_cast<uintptr_t>(pad) & 3) * 8 & 0xff;
}

// The V channels of a thread: where they start, their strides in time, and their parameters.
template <typename T, int V>
struct Columns {
  using S = State<T>;
  int64_t b, channel, first_t;
  // From one step to the next, negative in reverse.
  int64_t pad_stride, row_stride, u_stride, s_stride;
  Gates<S> gates[V];
  S mask[V];
  S scale;

  SRU_INLINE Columns(const Inputs<T>& in, int64_t index) {
    b = index / (in.width / V);
    channel = index % (in.width / V) * V;
    first_t = in.time(channel, 0);
    pad_stride = in.reverse(channel) ? -in.batch : in.batch;
    row_stride = pad_stride * in.width;
    u_stride = row_stride * in.blocks;
    s_stride = in.blocks == 4 ? u_stride : row_stride;
    scale = in.x ? in.scale : 1;
    for (int i = 0; i < V; ++i) {
      const int64_t d = channel + i;
      gates[i] = {
          in.weight_c ? in.weight_c[d] : 0, in.weight_c ? in.weight_c[in.width + d] : 0, in.bias[d],
          in.bias[in.width + d]};
      mask[i] = in.mask_c ? in.mask_c[in.state_at(b, d)] : 1;
    }
  }

  SRU_INLINE S initial_state(const Inputs<T>& in, int i) const {
    return in.c0 ? in.c0[in.state_at(b, channel + i)] : 0;
  }

  // The highway input at time t, null without one.
  SRU_INLINE const T* highway(const Inputs<T>& in, int64_t t) const {
    return in.blocks == 4 ? in.u + in.u_at(t, b, channel) + 3 * in.width
           : in.x         ? in.x + in.row_at(t, b, channel)
                          : nullptr;
  }
};

// Whether shape and alignment allow two channels of 16 bits a thread: its copies then move 4 bytes.
template <typename T, typename... Pointers>
bool can_pair(const Inputs<T>& in, Pointers... pointers) {
  const uintptr_t address =
      (reinterpret_cast<uintptr_t>(in.u) | ... | reinterpret_cast<uintptr_t>(pointers));
  return sizeof(T) == 2 && in.width % (in.bidirectional ? 4 : 2) == 0 && address % 8 == 0;
}

}  // namespace sru
