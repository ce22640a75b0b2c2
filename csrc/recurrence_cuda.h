// The CUDA kernels of the recurrence, for float, double, __half and __nv_bfloat16. L, B and D must
// not be 0.
#pragma once

#include <cuda_runtime_api.h>

#include "recurrence.h"

namespace sru {

template <typename T>
cudaError_t forward_cuda(const Forward<T>& args, cudaStream_t stream);
template <typename T>
cudaError_t backward_cuda(const Backward<T>& args, cudaStream_t stream);

}  // namespace sru
