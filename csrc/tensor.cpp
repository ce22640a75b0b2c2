#include "tensor.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

namespace sru {

Tensor empty(at::IntArrayRef sizes, const at::TensorOptions& options) {
  return at::empty(sizes, options);
}

Tensor zeros(at::IntArrayRef sizes, const at::TensorOptions& options) {
  return at::zeros(sizes, options);
}

}  // namespace sru
