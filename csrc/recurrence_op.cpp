// The recurrence's operators: argument checks, outputs, and the CPU binding.
#include "recurrence_op.h"

namespace sru {
namespace {

at::ScalarType state_dtype(const Tensor& u) {
  return u.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

at::TensorOptions state_options(const Tensor& u) {
  return u.options().dtype(state_dtype(u));
}

// The length of c: see Forward.
int64_t kept_states(const Operands& in) {
  const int64_t L = in.u.size(0);
  return in.u.is_cuda() ? (L + kStatesEvery - 1) / kStatesEvery : L;
}

void check_tensor(
    const char* name, const Tensor& tensor, at::IntArrayRef shape, at::ScalarType dtype,
    const Tensor& u) {
  TORCH_CHECK_VALUE(
      tensor.sizes() == shape, "recurrence: ", name, " has shape ", tensor.sizes(), ", expected ",
      shape, " for u of shape ", u.sizes());
  TORCH_CHECK_TYPE(
      tensor.scalar_type() == dtype, "recurrence: ", name, " is ", tensor.scalar_type(),
      ", expected ", dtype, " for u of ", u.scalar_type());
  TORCH_CHECK_VALUE(
      tensor.device() == u.device(), "recurrence: ", name, " is on ", tensor.device(), ", u on ",
      u.device());
}

void check_input(
    const char* name, const OptionalTensor& tensor, at::IntArrayRef shape, at::ScalarType dtype,
    const Tensor& u) {
  if (tensor) {
    check_tensor(name, *tensor, shape, dtype, u);
    TORCH_CHECK_VALUE(
        tensor->is_contiguous(), "recurrence: ", name, " is not contiguous; call .contiguous()");
  }
}

}  // namespace

void check_forward(const Operands& in) {
  const Tensor& u = in.u;
  TORCH_CHECK_VALUE(
      u.dim() == 4 && (u.size(2) == 3 || u.size(2) == 4), "recurrence: u has shape ", u.sizes(),
      ", expected (L, B, k, D) with k 3 or 4");
  TORCH_CHECK_VALUE(u.is_contiguous(), "recurrence: u is not contiguous; call .contiguous()");
  const int64_t L = u.size(0), B = u.size(1), D = u.size(3);
  TORCH_CHECK_VALUE(
      !in.bidirectional || D % 2 == 0,
      "recurrence: a bidirectional recurrence needs an even D, not ", D);
  TORCH_CHECK_VALUE(
      !(in.x && u.size(2) == 4),
      "recurrence: with k = 4 the highway input is the last block of u; x must be None");
  const at::ScalarType dtype = u.scalar_type(), state = state_dtype(u);
  check_input("x", in.x, {L, B, D}, dtype, u);
  check_input("weight_c", in.weight_c, {2, D}, state, u);
  check_input("bias", in.bias, {2, D}, state, u);
  check_input("c0", in.c0, {B, D}, state, u);
  check_input("pad", in.pad, {L, B}, at::kBool, u);
  check_input("mask_c", in.mask_c, {B, D}, state, u);
}

void check_backward(
    const Operands& in, const Tensor& c, const Tensor& grad_h, const Tensor& grad_c_last) {
  const int64_t L = in.u.size(0), B = in.u.size(1), D = in.u.size(3);
  const at::ScalarType dtype = in.u.scalar_type(), state = state_dtype(in.u);
  check_input("c", c, {kept_states(in), B, D}, state, in.u);
  check_tensor("grad_h", grad_h, {L, B, D}, dtype, in.u);
  check_tensor("grad_c_last", grad_c_last, {B, D}, state, in.u);
}

Outputs empty_outputs(const Operands& in, bool save_c) {
  const int64_t L = in.u.size(0), B = in.u.size(1), D = in.u.size(3);
  const at::TensorOptions state = state_options(in.u);
  return {
      empty({L, B, D}, in.u.options()), empty({B, D}, state),
      save_c ? empty({kept_states(in), B, D}, state) : empty({0}, state)};
}

Grads empty_grads(const Operands& in) {
  const int64_t B = in.u.size(1), D = in.u.size(3);
  const at::TensorOptions options = in.u.options(), state = state_options(in.u);
  return {
      empty(in.u.sizes(), options), in.x ? empty(in.x->sizes(), options) : empty({0}, options),
      empty({B, 4, D}, state), empty({B, D}, state),
      in.mask_c ? empty({B, D}, state) : empty({0}, state)};
}

std::tuple<Tensor, Tensor> sum_gates(const Operands& in, const Tensor& gates) {
  const Tensor sum = gates.sum(0);
  return {
      in.weight_c ? sum.slice(0, 0, 2).contiguous() : empty({0}, sum.options()),
      sum.slice(0, 2, 4).contiguous()};
}

void Cpu::forward(const Operands& in, const Outputs& out) {
  dispatch(
      "recurrence", in.u, [&](auto type) { forward_cpu(forward_args<decltype(type)>(in, out)); });
}

void Cpu::backward(
    const Operands& in, const Tensor& c, const Tensor& grad_h, const Tensor& grad_c_last,
    const Grads& grads) {
  dispatch("recurrence", in.u, [&](auto type) {
    backward_cpu(backward_args<decltype(type)>(in, c, grad_h, grad_c_last, grads));
  });
}

}  // namespace sru
