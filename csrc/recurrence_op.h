// The recurrence's operators, for any device: arguments checked, outputs allocated, one kernel
// launched.
#pragma once

#include <tuple>

#include "recurrence.h"
#include "tensor.h"

namespace sru {

struct Operands {
  const Tensor& u;
  const OptionalTensor& x;
  const OptionalTensor& weight_c;
  const Tensor& bias;
  const OptionalTensor& c0;
  const OptionalTensor& pad;
  const OptionalTensor& mask_c;
  double scale;
  bool bidirectional;
};

struct Outputs {
  Tensor h, c_last, c;  // c: see Forward; (0,) unless saved
};

struct Grads {
  Tensor u, x, gates, c0, mask_c;  // gates: (B, 4, D); x, mask_c: (0,) without the input
};

void check_forward(const Operands& in);
void check_backward(
    const Operands& in, const Tensor& c, const Tensor& grad_h, const Tensor& grad_c_last);
Outputs empty_outputs(const Operands& in, bool save_c);
Grads empty_grads(const Operands& in);
std::tuple<Tensor, Tensor> sum_gates(
    const Operands& in, const Tensor& gates);  // grad_weight_c, grad_bias

template <typename T>
Inputs<T> inputs(const Operands& in) {
  using S = State<T>;
  return {in.u.size(0),         in.u.size(1),
          in.u.size(3),         static_cast<int>(in.u.size(2)),
          in.bidirectional,     static_cast<S>(in.x ? in.scale : 1),
          data<const T>(in.u),  data<T>(in.x),
          data<S>(in.weight_c), data<const S>(in.bias),
          data<S>(in.c0),       data<bool>(in.pad),
          data<S>(in.mask_c)};
}

template <typename T>
Forward<T> forward_args(const Operands& in, const Outputs& out) {
  using S = State<T>;
  return {inputs<T>(in), data<T>(out.h), data<S>(out.c_last), data<S>(out.c)};
}

template <typename T>
Backward<T> backward_args(
    const Operands& in, const Tensor& c, const Tensor& grad_h, const Tensor& grad_c_last,
    const Grads& grads) {
  using S = State<T>;
  return {inputs<T>(in),        data<const S>(c), data<const T>(grad_h), data<const S>(grad_c_last),
          data<T>(grads.u),     data<T>(grads.x), data<S>(grads.gates),  data<S>(grads.c0),
          data<S>(grads.mask_c)};
}

// The operators of one device. Launch has, static and for any pair of arguments as above,
//   forward(const Operands&, const Outputs&)
//   backward(const Operands&, const Tensor& c, const Tensor& grad_h, const Tensor& grad_c_last,
//   const Grads&)
template <typename Launch>
std::tuple<Tensor, Tensor, Tensor> recurrence(
    const Tensor& u, const OptionalTensor& x, const OptionalTensor& weight_c, const Tensor& bias,
    const OptionalTensor& c0, const OptionalTensor& pad, const OptionalTensor& mask_c, double scale,
    bool bidirectional, bool save_c) {
  const Operands in{u, x, weight_c, bias, c0, pad, mask_c, scale, bidirectional};
  check_forward(in);
  const Outputs out = empty_outputs(in, save_c);
  if (out.c_last.numel() > 0) {
    Launch::forward(in, out);
  }
  return {out.h, out.c_last, out.c};
}

template <typename Launch>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> recurrence_backward(
    const Tensor& grad_h, const Tensor& grad_c_last, const Tensor& u, const OptionalTensor& x,
    const OptionalTensor& weight_c, const Tensor& bias, const OptionalTensor& c0,
    const OptionalTensor& pad, const OptionalTensor& mask_c, const Tensor& c, double scale,
    bool bidirectional) {
  const Operands in{u, x, weight_c, bias, c0, pad, mask_c, scale, bidirectional};
  check_forward(in);
  check_backward(in, c, grad_h, grad_c_last);
  const Grads grads = empty_grads(in);
  if (grads.c0.numel() > 0) {
    Launch::backward(in, c, grad_h.contiguous(), grad_c_last.contiguous(), grads);
  }
  const auto [grad_weight_c, grad_bias] = sum_gates(in, grads.gates);
  return {grads.u, grads.x, grad_weight_c, grad_bias, grads.c0, grads.mask_c};
}

struct Cpu {
  static void forward(const Operands& in, const Outputs& out);
  static void backward(
      const Operands& in, const Tensor& c, const Tensor& grad_h, const Tensor& grad_c_last,
      const Grads& grads);
};

}  // namespace sru
