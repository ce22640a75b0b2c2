// Operator schema, argument checks, the CPU binding and the Python module.
#include <Python.h>

#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <torch/library.h>

#include "dropout.h"
#include "few_rows.h"
#include "ops.h"
#include "step_attention.h"

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
      at::empty({L, B, D}, in.u.options()), at::empty({B, D}, state),
      save_c ? at::empty({kept_states(in), B, D}, state) : at::empty({0}, state)};
}

Grads empty_grads(const Operands& in) {
  const int64_t B = in.u.size(1), D = in.u.size(3);
  const at::TensorOptions options = in.u.options(), state = state_options(in.u);
  return {
      at::empty(in.u.sizes(), options),
      in.x ? at::empty(in.x->sizes(), options) : at::empty({0}, options),
      at::empty({B, 4, D}, state), at::empty({B, D}, state),
      in.mask_c ? at::empty({B, D}, state) : at::empty({0}, state)};
}

std::tuple<Tensor, Tensor> sum_gates(const Operands& in, const Tensor& gates) {
  const Tensor sum = gates.sum(0);
  return {
      in.weight_c ? sum.slice(0, 0, 2).contiguous() : at::empty({0}, sum.options()),
      sum.slice(0, 2, 4).contiguous()};
}

namespace {

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

struct Cpu {
  static void forward(const Operands& in, const Outputs& out) {
    dispatch("recurrence", in.u, [&](auto type) {
      forward_cpu(forward_args<decltype(type)>(in, out));
    });
  }

  static void backward(
      const Operands& in, const Tensor& c, const Tensor& grad_h, const Tensor& grad_c_last,
      const Grads& grads) {
    dispatch("recurrence", in.u, [&](auto type) {
      backward_cpu(backward_args<decltype(type)>(in, c, grad_h, grad_c_last, grads));
    });
  }
};

Tensor dropout(const Tensor& in, double p, int64_t seed) {
  TORCH_CHECK_VALUE(0 <= p && p < 1, "dropout: p must be at least 0 and below 1, got ", p);
  const Tensor dense = in.contiguous();
  const Tensor out = at::empty(dense.sizes(), dense.options());
  dispatch("dropout", dense, [&](auto type) {
    using T = decltype(type);
    dropout_cpu(Dropout<T>{data<T>(dense), data<T>(out), out.numel(), p, uint64_t(seed)});
  });
  return out;
}

Tensor step_attention(
    const Tensor& q, const Tensor& keys_values, const Tensor& mask, double alpha, int64_t heads) {
  TORCH_CHECK_VALUE(
      q.dim() == 2 && keys_values.dim() == 3 && mask.dim() == 2,
      "step_attention: q, keys_values and mask have shapes ", q.sizes(), ", ", keys_values.sizes(),
      " and ", mask.sizes(), ", expected (R, C), (N, slots, 2C) and (R, slots)");
  const int64_t R = q.size(0), C = q.size(1), N = keys_values.size(0), slots = keys_values.size(1);
  TORCH_CHECK_VALUE(
      keys_values.size(2) == 2 * C && mask.size(0) == R && mask.size(1) == slots &&
          (N == 0 ? R == 0 : R % N == 0),
      "step_attention: q ", q.sizes(), ", keys_values ", keys_values.sizes(), " and mask ",
      mask.sizes(), " do not fit (R, C), (N, slots, 2C) and (R, slots), N a divisor of R");
  TORCH_CHECK_VALUE(
      heads > 0 && C % heads == 0, "step_attention: ", heads, " heads do not divide ", C);
  TORCH_CHECK_TYPE(
      keys_values.scalar_type() == q.scalar_type() && mask.scalar_type() == q.scalar_type(),
      "step_attention: q is ", q.scalar_type(), ", keys_values ", keys_values.scalar_type(),
      ", mask ", mask.scalar_type(), "; they must agree");
  TORCH_CHECK_VALUE(
      q.is_contiguous() && keys_values.stride(2) == 1 && mask.stride(1) == 1,
      "step_attention: q must be contiguous, keys_values and mask dense in their last dimension");
  const Tensor y = at::empty(q.sizes(), q.options());
  if (y.numel() > 0) {
    dispatch("step_attention", q, [&](auto type) {
      using T = decltype(type);
      step_attention_cpu(StepAttention<T>{
          data<T>(q), data<T>(keys_values), data<T>(mask), data<T>(y), State<T>(alpha), N, R / N,
          slots, C, heads, keys_values.stride(0), keys_values.stride(1), mask.stride(0)});
    });
  }
  return y;
}

Tensor few_rows(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  TORCH_CHECK_VALUE(
      x.dim() == 2 && weight.dim() == 2 && x.size(1) == weight.size(1) &&
          (!bias || bias->sizes() == at::IntArrayRef{weight.size(0)}),
      "few_rows: x, weight and bias have shapes ", x.sizes(), ", ", weight.sizes(), " and ",
      bias ? bias->sizes() : at::IntArrayRef{}, ", expected (R, in), (out, in) and (out)");
  TORCH_CHECK_TYPE(
      weight.scalar_type() == x.scalar_type() && (!bias || bias->scalar_type() == x.scalar_type()),
      "few_rows: x is ", x.scalar_type(), ", weight ", weight.scalar_type(), "; they must agree");
  const Tensor rows = x.contiguous(), w = weight.contiguous();
  const Tensor b = bias ? bias->contiguous() : Tensor();
  const Tensor y = at::empty({x.size(0), weight.size(0)}, x.options());
  dispatch("few_rows", x, [&](auto type) {
    using T = decltype(type);
    few_rows_cpu(FewRows<T>{
        data<T>(rows), data<T>(w), bias ? data<T>(b) : nullptr, data<T>(y), x.size(0), x.size(1),
        weight.size(0)});
  });
  return y;
}

}  // namespace
}  // namespace sru

TORCH_LIBRARY(fairseq_sru, m) {
  m.def(
      "recurrence(Tensor u, Tensor? x, Tensor? weight_c, Tensor bias, Tensor? c0, Tensor? pad, "
      "Tensor? mask_c, "
      "float scale, bool bidirectional, bool save_c) -> (Tensor h, Tensor c_last, Tensor c)");
  m.def(
      "recurrence_backward(Tensor grad_h, Tensor grad_c_last, Tensor u, Tensor? x, Tensor? "
      "weight_c, Tensor bias, "
      "Tensor? c0, Tensor? pad, Tensor? mask_c, Tensor c, float scale, bool bidirectional) -> "
      "(Tensor grad_u, "
      "Tensor grad_x, Tensor grad_weight_c, Tensor grad_bias, Tensor grad_c0, Tensor grad_mask_c)");
  m.def(
      "step_attention(Tensor q, Tensor keys_values, Tensor mask, float alpha, int heads) -> "
      "Tensor");
  m.def("dropout(Tensor input, float p, int seed) -> Tensor");
  m.def("few_rows(Tensor x, Tensor weight, Tensor? bias) -> Tensor");
}

TORCH_LIBRARY_IMPL(fairseq_sru, CPU, m) {
  m.impl("recurrence", &sru::recurrence<sru::Cpu>);
  m.impl("recurrence_backward", &sru::recurrence_backward<sru::Cpu>);
  m.impl("step_attention", &sru::step_attention);
  m.impl("dropout", &sru::dropout);
  m.impl("few_rows", &sru::few_rows);
}

// The module itself is empty: importing it registers the operators.
PyMODINIT_FUNC PyInit_fairseq_sru_ext() {
  static PyModuleDef module = {
      PyModuleDef_HEAD_INIT, "fairseq_sru_ext",
      "Compiled operators of fairseq-sru: torch.ops.fairseq_sru.", -1};
  return PyModule_Create(&module);
}
