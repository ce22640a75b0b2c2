// Derivatives that an operator has not got are an error: PyTorch itself would take its result for a
// constant, and hand on zeros.
#pragma once

#include <algorithm>

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/GradMode.h>

namespace sru {

template <typename F>
bool any_argument(const c10::OperatorHandle& op, const torch::jit::Stack* stack, const F& is) {
  const auto count = static_cast<int64_t>(op.schema().arguments().size());
  return std::any_of(stack->end() - count, stack->end(), [&](const c10::IValue& value) {
    return value.isTensor() && value.toTensor().defined() && is(value.toTensor());
  });
}

inline void refuse_tangents(const c10::OperatorHandle& op, const torch::jit::Stack* stack) {
  const auto has_tangent = [](const at::Tensor& t) { return t._fw_grad(/*level=*/0).defined(); };
  TORCH_CHECK_NOT_IMPLEMENTED(
      !any_argument(op, stack, has_tangent), op.schema().name(),
      " has no derivative in forward mode; the functions of fairseq_sru.ops have");
}

// Of operators that are differentiated in backward mode, by Python's register_autograd.
inline void backward_mode(
    const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  refuse_tangents(op, stack);
  const at::AutoDispatchBelowADInplaceOrView below;
  op.redispatchBoxed(keys & c10::after_ADInplaceOrView_keyset, stack);
}

// Of operators that are not differentiated as such.
inline void no_derivative(
    const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  refuse_tangents(op, stack);
  const auto requires_grad = [](const at::Tensor& t) { return t.requires_grad(); };
  TORCH_CHECK_NOT_IMPLEMENTED(
      !c10::GradMode::is_enabled() || !any_argument(op, stack, requires_grad), op.schema().name(),
      " has no derivative as such: call it under torch.no_grad(), or take the function of "
      "fairseq_sru.ops where there is one");
  const at::AutoDispatchBelowADInplaceOrView below;
  op.redispatchBoxed(keys & c10::after_ADInplaceOrView_keyset, stack);
}

}  // namespace sru
