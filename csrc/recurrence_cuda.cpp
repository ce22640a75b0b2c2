// CUDA binding of the recurrence's operators.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "recurrence_cuda.h"
#include "recurrence_op.h"

namespace sru {
namespace {

struct Cuda {
  template <typename F>
  static void dispatch(const Tensor& u, const F& launch) {
    constexpr int64_t limit = int64_t(1) << 31;
    TORCH_CHECK_VALUE(
        u.size(0) < limit - 64 && u.size(1) * (u.size(3) / 32 + 2) < limit,
        "recurrence: u of shape ", u.sizes(), " is more than a CUDA kernel takes; split the batch");
    const c10::cuda::CUDAGuard guard(u.device());
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    switch (u.scalar_type()) {
      case at::kFloat:
        C10_CUDA_CHECK(launch(float(), stream));
        break;
      case at::kDouble:
        C10_CUDA_CHECK(launch(double(), stream));
        break;
      case at::kHalf:
        C10_CUDA_CHECK(launch(__half(), stream));
        break;
      case at::kBFloat16:
        C10_CUDA_CHECK(launch(__nv_bfloat16(), stream));
        break;
      default:
        TORCH_CHECK_TYPE(
            false, "recurrence: no CUDA kernel for ", u.scalar_type(),
            "; use float32, bfloat16, float16 or float64");
    }
  }

  static void forward(const Operands& in, const Outputs& out) {
    if (in.u.size(0) == 0) {
      in.c0 ? out.c_last.copy_(*in.c0) : out.c_last.zero_();
      return;
    }
    dispatch(in.u, [&](auto type, cudaStream_t stream) {
      return forward_cuda(forward_args<decltype(type)>(in, out), stream);
    });
  }

  static void backward(
      const Operands& in, const Tensor& c, const Tensor& grad_h, const Tensor& grad_c_last,
      const Grads& grads) {
    if (in.u.size(0) == 0) {
      grads.c0.copy_(grad_c_last);
      grads.gates.zero_();
      grads.mask_c.zero_();
      return;
    }
    dispatch(in.u, [&](auto type, cudaStream_t stream) {
      return backward_cuda(
          backward_args<decltype(type)>(in, c, grad_h, grad_c_last, grads), stream);
    });
  }
};

}  // namespace
}  // namespace sru

TORCH_LIBRARY_IMPL(fairseq_sru, CUDA, m) {
  m.impl("recurrence", &sru::recurrence<sru::Cuda>);
  m.impl("recurrence_backward", &sru::recurrence_backward<sru::Cuda>);
}
