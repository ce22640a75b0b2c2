// The SRU recurrence: its gate equations, once for the CPU and the CUDA kernels, and the arguments
// both take.
//
//   f = sigmoid(u0 + v_f * prev + b_f)      c = f * prev + (1 - f) * u2
//   r = sigmoid(u1 + v_r * prev + b_r)      h = s + (c - s) * m * r
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "inline.h"

#if defined(__CUDACC__) || defined(SRU_EMULATED)
#include "warp.cuh"
#endif

#if defined(__CUDA_ARCH__) || defined(SRU_EMULATED)
#define SRU_ON_GPU
#endif

namespace sru {

// The type of the state, the gate parameters and all arithmetic, for inputs of type T.
template <typename T>
struct StateOf {
  using type = float;
};
template <>
struct StateOf<double> {
  using type = double;
};
template <typename T>
using State = typename StateOf<T>::type;

// All tensors are dense and time-major. With `bidirectional`, channels [0, D/2) run forwards in
// time and [D/2, D) backwards. A null pointer stands for an absent tensor: weight_c and c0 zero,
// mask_c one, no padding.
template <typename T>
struct Inputs {
  int64_t length, batch, width;  // L, B, D
  int blocks;                    // k: 3, or 4 with the highway input as the last block of u
  bool bidirectional;
  State<T> scale;            // of the highway input: 1 unless it is x
  const T* u;                // (L, B, k, D): forget, reset, candidate[, highway]
  const T* x;                // (L, B, D): highway input; null with k == 3: no highway, s = 0
  const State<T>* weight_c;  // (2, D): v_f, v_r
  const State<T>* bias;      // (2, D): b_f, b_r
  const State<T>* c0;        // (B, D)
  const bool* pad;           // (L, B): a padded step carries c through and outputs 0
  const State<T>* mask_c;    // (B, D)

  // Whether the direction of a channel runs backwards in time, and the t of its step-th step.
  SRU_INLINE bool reverse(int64_t channel) const { return bidirectional && channel >= width / 2; }
  SRU_INLINE int64_t time(int64_t channel, int64_t step) const {
    return reverse(channel) ? length - 1 - step : step;
  }

  // Offsets into (B, D), (L, B, D) and (L, B, k, D).
  SRU_INLINE int64_t state_at(int64_t b, int64_t channel) const { return b * width + channel; }
  SRU_INLINE int64_t row_at(int64_t t, int64_t b, int64_t channel) const {
    return (t * batch + b) * width + channel;
  }
  SRU_INLINE int64_t u_at(int64_t t, int64_t b, int64_t channel) const {
    return (t * batch + b) * blocks * width + channel;
  }
};

// The CUDA kernels keep the state before every so many steps of a channel.
constexpr int kStatesEvery = 8;

template <typename T>
struct Forward : Inputs<T> {
  T* h;              // (L, B, D)
  State<T>* c_last;  // (B, D)
  // What the backward pass needs, null if it is not wanted. CPU: the state after each step,
  // (L, B, D). CUDA: before each kStatesEvery-th step in the channel's direction,
  // (L / kStatesEvery rounded up, B, D).
  State<T>* c;
};

template <typename T>
struct Backward : Inputs<T> {
  const State<T>* c;            // from the forward pass
  const T* grad_h;              // (L, B, D)
  const State<T>* grad_c_last;  // (B, D)
  T* grad_u;                    // (L, B, k, D)
  T* grad_x;                    // (L, B, D), null without x
  State<T>*
      grad_gates;     // (B, 4, D): v_f, v_r, b_f, b_r of each batch element, for the caller to sum
  State<T>* grad_c0;  // (B, D)
  State<T>* grad_mask_c;  // (B, D), null without mask_c
};

template <typename To, typename From>
SRU_INLINE To bit_cast(From value) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast needs equal sizes");
  To result;
  memcpy(&result, &value, sizeof(To));
  return result;
}

// exp(x) without branches or calls, so that loops over it vectorise: x = n ln2 + r, a Taylor
// polynomial in r, times 2^n. The magic number rounds x / ln2 to the integer n, and leaves n plus
// the exponent's bias in the low bits. About 1 ulp for |x| <= 87 (float) and |x| <= 708 (double);
// wrong beyond. NaN stays NaN: the product sees to it, whatever 2^n has become.
SRU_INLINE float exp_bounded(float x) {
  const float magic = 12582912.0f + 127;  // 1.5 * 2^23 + bias
  const float shifted = x * 1.44269504f + magic;
  const float n = shifted - magic;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * bit_cast<float>(bit_cast<uint32_t>(shifted) << 23);
}

SRU_INLINE double exp_bounded(double x) {
  const double magic = 6755399441055744.0 + 1023;  // 1.5 * 2^52 + bias
  const double shifted = x * 1.4426950408889634 + magic;
  const double n = shifted - magic;
  const double r = (x - n * 0.69314718036912382) - n * 1.9082149292705877e-10;
  double p = 1.0 / 6227020800;
  p = p * r + 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  return p * bit_cast<double>(bit_cast<uint64_t>(shifted) << 52);
}

// sigmoid(v prev + u + b). The clamps let NaN through.
SRU_INLINE float gate(float v, float b, float u, float prev) {
#ifdef SRU_ON_GPU
  // 1 / (1 + 2^x); the compiler takes the products with v and b out of the loop over time.
  const float scale = -1.44269504f;
  const float x = fmaf(v * scale, prev, fmaf(u, scale, b * scale));
  return warp::reciprocal(1.0f + warp::exp2(x));
#else
  float x = v * prev + (u + b);
  x = x < -87.0f ? -87.0f : x;
  x = x > 87.0f ? 87.0f : x;
  return 1.0f / (1.0f + exp_bounded(-x));
#endif
}

SRU_INLINE double gate(double v, double b, double u, double prev) {
  double x = v * prev + (u + b);
#ifdef SRU_ON_GPU
  return 1.0 / (1.0 + exp(-x));
#else
  x = x < -708.0 ? -708.0 : x;
  x = x > 708.0 ? 708.0 : x;
  return 1.0 / (1.0 + exp_bounded(-x));
#endif
}

template <typename S>
struct Gates {
  S v_f, v_r, b_f, b_r;
};

template <typename S>
struct Step {
  S c, h;
};

template <typename S>
SRU_INLINE S forget_gate(Gates<S> gates, S u0, S prev) {
  return gate(gates.v_f, gates.b_f, u0, prev);
}
template <typename S>
SRU_INLINE S reset_gate(Gates<S> gates, S u1, S prev) {
  return gate(gates.v_r, gates.b_r, u1, prev);
}

// The state after `prev`; exactly `prev` where f is 1.
template <typename S>
SRU_INLINE S next_state(S f, S u2, S prev) {
  return f * prev + (u2 - f * u2);
}

template <typename S>
SRU_INLINE S output(S r, S mask, S s, S c) {
  return s + (c - s) * (mask * r);
}

template <typename S>
SRU_INLINE Step<S> forward_step(Gates<S> gates, S mask, S u0, S u1, S u2, S s, S prev) {
  const S f = forget_gate(gates, u0, prev);
  const S r = reset_gate(gates, u1, prev);
  const S c = next_state(f, u2, prev);
  return {c, output(r, mask, s, c)};
}

// Gradients of one step. u0 and u1 are also those of b_f and b_r; times prev, those of v_f and v_r.
template <typename S>
struct StepGrad {
  S u0, u1, u2, s, prev, mask;
};

template <typename S>
SRU_INLINE StepGrad<S> backward_step(
    Gates<S> gates, S mask, S f, S r, S u2, S s, S prev, S c, S grad_h, S grad_c) {
  const S grad_mr = grad_h * (c - s);
  const S grad_s = grad_h - grad_h * (mask * r);
  const S grad_c_total = grad_c + grad_h * (mask * r);
  const S grad_u0 = grad_c_total * (prev - u2) * (f * (1 - f));
  const S grad_u1 = grad_mr * mask * (r * (1 - r));
  return {
      grad_u0,
      grad_u1,
      grad_c_total * (1 - f),
      grad_s,
      grad_c_total * f + grad_u0 * gates.v_f + grad_u1 * gates.v_r,
      grad_mr * r};
}

// The CPU kernels, for float, double and c10::BFloat16. B and D must not be 0.
template <typename T>
void forward_cpu(const Forward<T>& args);
template <typename T>
void backward_cpu(const Backward<T>& args);

}  // namespace sru
