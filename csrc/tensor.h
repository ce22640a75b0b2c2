// What the operators share: pointers into tensors, and the numeric types of the CPU kernels.
#pragma once

#include <optional>
#include <type_traits>

#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>

namespace sru {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// As in PyTorch, whose headers of functions take longer to compile than most files here.
Tensor empty(at::IntArrayRef sizes, const at::TensorOptions& options);
Tensor zeros(at::IntArrayRef sizes, const at::TensorOptions& options);

// A const T leaves a tensor that is copied when it is written to without its copy.
template <typename T>
T* data(const Tensor& tensor) {
  if (tensor.numel() == 0) {
    return nullptr;
  }
  if constexpr (std::is_const_v<T>) {
    return static_cast<T*>(tensor.const_data_ptr());
  } else {
    return static_cast<T*>(tensor.mutable_data_ptr());
  }
}

template <typename T>
const T* data(const OptionalTensor& tensor) {
  return tensor ? data<const T>(*tensor) : nullptr;
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
