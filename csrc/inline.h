// How small functions of kernels are declared: for the CPU, or for both sides where nvcc compiles.
#pragma once

#if defined(__CUDACC__)
#define SRU_INLINE __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define SRU_INLINE inline __attribute__((always_inline))
#else
#define SRU_INLINE inline
#endif
