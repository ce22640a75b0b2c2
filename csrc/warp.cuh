// What a warp has and a CPU has not. tests/emulator takes its place to run the kernels without a
// GPU.
#pragma once

#ifdef SRU_EMULATED
#include "emulator.h"
#else

#include <cuda_runtime_api.h>

#include <cstdint>

#include "inline.h"

namespace sru::warp {

// Copies a chunk of 4, 8 or 16 bytes from global to shared memory; asynchronous from sm_80 on.
template <int Bytes>
SRU_INLINE void copy_async(char* shared, const char* global) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(Bytes)
                 : "memory");
  }
#else
  struct alignas(Bytes) Chunk {
    char bytes[Bytes];
  };
  *reinterpret_cast<Chunk*>(shared) = *reinterpret_cast<const Chunk*>(global);
#endif
}

// Ends a group of copies: all of this lane since the last one.
SRU_INLINE void commit_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until all but the latest Pending groups of this lane have arrived.
template <int Pending>
SRU_INLINE void wait_for_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

SRU_INLINE void sync() {
#ifdef __CUDA_ARCH__
  __syncwarp();
#endif
}

// Of all the block's warps.
SRU_INLINE void sync_block() {
#ifdef __CUDA_ARCH__
  __syncthreads();
#endif
}

// Bit i: the value of lane i.
SRU_INLINE uint32_t ballot(bool value) {
#ifdef __CUDA_ARCH__
  return __ballot_sync(0xffffffffu, value);
#else
  return value;
#endif
}

// From shared memory. The compiler is not to know that half of the word is empty: it would pack two
// into one.
SRU_INLINE uint32_t load_16_bits(const uint16_t* from) {
#ifdef __CUDA_ARCH__
  uint32_t word;
  asm volatile("ld.shared.u16 %0, [%1];"
               : "=r"(word)
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(from))));
  return word;
#else
  return *from;
#endif
}

// 2^x and 1 / x, to 2 ulp; subnormal numbers are 0.
SRU_INLINE float exp2(float x) {
  float result = x;
#ifdef __CUDA_ARCH__
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
#endif
  return result;
}
SRU_INLINE float reciprocal(float x) {
  float result = x;
#ifdef __CUDA_ARCH__
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
#endif
  return result;
}

template <typename Program, typename Arguments>
__global__ void __launch_bounds__(Program::kThreads, Program::kBlocks)
    kernel(const __grid_constant__ Arguments args) {
  __shared__ alignas(16) char shared[Program::kShared];
  Program::run(args, blockIdx.x, threadIdx.x, shared);
}

// Starts blocks of Program::kThreads lanes, which do Program::run(args, block, index, shared
// memory). At least Program::kBlocks of them fit on a multiprocessor at once.
template <typename Program, typename Arguments>
cudaError_t launch(const Arguments& args, unsigned blocks, cudaStream_t stream) {
  const auto chosen = kernel<Program, Arguments>;
  // more blocks than by default fit into the shared memory of a multiprocessor
  const cudaError_t carved = cudaFuncSetAttribute(
      chosen, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  if (carved != cudaSuccess) {
    return carved;
  }
  // clang-format off
  chosen<<<blocks, Program::kThreads, 0, stream>>>(args);
  // clang-format on
  return cudaGetLastError();
}

inline int64_t processors() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

}  // namespace sru::warp

#endif
