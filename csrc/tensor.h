// What the operators share: pointers into tensors, and the numeric types of the CPU kernels.
#pragma once

#include <optional>

#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>

namespace sru {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

template <typename T>
T* data(const Tensor& tensor) {
  return tensor.numel() ? static_cast<T*>(tensor.data_ptr()) : nullptr;
}

template <typename T>
const T* data(const OptionalTensor& tensor) {
  return tensor ? data<T>(*tensor) : nullptr;
}

// launch(T()) for the tensor's numeric type T.
template <typename F>
void dispatch(const char* name, const Tensor& tensor, const F& launch) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return launch(float());
    case at::kDouble:
      return launch(double());
    case at::kBFloat16:
      return launch(c10::BFloat16());
    default:
      TORCH_CHECK_TYPE(
          false, name, ": no CPU kernel for ", tensor.scalar_type(),
          "; use float32, bfloat16 or float64");
  }
}

}  // namespace sru
