// Random cases through forward_cuda and backward_cuda, launcher included, beside a loop in double.
//
//   emulator CASES SEED [FAULT]     FAULT: a number of emulator.h's enum
//
// Ends with the first case that has wrong values, which it prints, and how many cases, wrong values
// and kinds of kernels there were.
#include <stdlib.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "emulator.h"
#include "recurrence_cuda_backward.cu"
#include "recurrence_cuda_forward.cu"

namespace {

std::mt19937_64 generator;
int64_t cases = 0, wrong = 0;
std::string described;

int below(int bound) {
  return static_cast<int>(generator() % bound);
}
bool coin() {
  return below(2) == 1;
}
int pick(const std::vector<int>& values) {
  return values[generator() % values.size()];
}

// clang-format off
double widened(double x) { return x; }
double widened(float x) { return x; }
double widened(__half x) { return __half2float(x); }
double widened(__nv_bfloat16 x) { return __bfloat162float(x); }
void narrowed(double x, bool& out) { out = x > 0; }
void narrowed(double x, double& out) { out = x; }
void narrowed(double x, float& out) { out = static_cast<float>(x); }
void narrowed(double x, __half& out) { out = __float2half_rn(static_cast<float>(x)); }
void narrowed(double x, __nv_bfloat16& out) { out = __float2bfloat16_rn(static_cast<float>(x)); }

template <typename T> const char* name();
template <> const char* name<double>() { return "float64"; }
template <> const char* name<float>() { return "float32"; }
template <> const char* name<__half>() { return "float16"; }
template <> const char* name<__nv_bfloat16>() { return "bfloat16"; }
// clang-format on

// Memory of exactly `count` values, the first `shift` values past an aligned address; NaN or
// random.
template <typename T>
class Tensor {
 public:
  Tensor(int64_t count, int shift, bool random) : count_(count) {
    const size_t bytes = (count + shift) * sizeof(T);
    if (posix_memalign(&memory_, 256, std::max<size_t>(bytes, 1)) != 0) {
      abort();
    }
    memset(memory_, 0xff, bytes);
    values_ = static_cast<T*>(memory_) + shift;
    for (int64_t i = 0; random && i < count; ++i) {
      narrowed(std::uniform_real_distribution<double>(-2, 2)(generator), values_[i]);
    }
  }
  Tensor(const Tensor&) = delete;
  ~Tensor() { free(memory_); }

  T* get() const { return count_ > 0 ? values_ : nullptr; }
  double operator[](int64_t i) const { return widened(values_[i]); }
  double get_or(int64_t i, double otherwise) const { return count_ > 0 ? (*this)[i] : otherwise; }

 private:
  int64_t count_;
  void* memory_ = nullptr;
  T* values_;
};

void compare(const char* what, int64_t at, double got, double expected, double tolerance) {
  if (std::fabs(got - expected) <= tolerance * (1 + std::fabs(expected))) {
    return;
  }
  if (++wrong <= 20) {
    printf("%s: %s[%ld] is %g, not %g\n", described.c_str(), what, long(at), got, expected);
  }
}

struct Sizes {
  int64_t length = pick({1,  2,  3,  4,  5,  7,  8,  9,  16, 27, 28,  29, 31,
                         32, 33, 36, 40, 55, 56, 57, 64, 65, 97, 136, 200});
  int64_t batch = pick({1, 2, 3});
  int64_t width = pick({1,  2,  3,  4,  6,  8,  12, 14,  16,  24,  30,  32,  34,
                        40, 48, 64, 66, 72, 80, 96, 112, 128, 130, 144, 200, 264});
  bool bidirectional = coin();
  int highway = below(3);  // none, x, the last block of u
  bool has_weight_c = below(4) > 0, has_c0 = coin(), has_pad = coin(), has_mask = coin();
  int shift = below(3) == 0 ? 1 + below(3) : 0;

  Sizes() {
    if (bidirectional) {
      width += width % 2;
    }
  }
  int blocks() const { return highway == 2 ? 4 : 3; }
  bool has_x() const { return highway == 1; }
};

// Sentences that end, that begin late, that are all padding, or padding anywhere.
Tensor<bool>* make_padding(const Sizes& s) {
  auto* pad = new Tensor<bool>(s.has_pad ? s.length * s.batch : 0, 0, false);
  const int style = below(4);
  for (int64_t i = 0; pad->get() && i < s.length * s.batch; ++i) {
    const int64_t t = i / s.batch, b = i % s.batch;
    pad->get()[i] = style == 0   ? below(3) == 0
                    : style == 1 ? t >= s.length - 3 - 7 * b
                    : style == 2 ? t < 5 + 9 * b
                                 : true;
  }
  return pad;
}

template <typename T>
void run_case(double tolerance) {
  using S = sru::State<T>;
  const Sizes s;
  sru::warp::Emulator& emulator = sru::warp::emulator;
  emulator.timing = sru::warp::Timing(below(sru::warp::kTimings));
  emulator.order = sru::warp::Order(below(sru::warp::kOrders));
  emulator.processors = pick({0, 1, 132});
  const char* kernels[] = {"", "pair", "pair", "single", "wide", "small"};
  const char* kernel = kernels[below(6)];
  setenv("FAIRSEQ_SRU_KERNEL", kernel, true);
  const double scale = s.has_x() ? 1.5 : 1;
  char text[200];
  snprintf(
      text, sizeof text,
      "%s L=%ld B=%ld D=%ld k=%d x=%d two=%d v=%d c0=%d pad=%d mask=%d shift=%d "
      "processors=%ld kernel=%s timing=%d order=%d",
      name<T>(), long(s.length), long(s.batch), long(s.width), s.blocks(), s.has_x(),
      s.bidirectional, s.has_weight_c, s.has_c0, s.has_pad, s.has_mask, s.shift,
      long(emulator.processors), kernel, emulator.timing, emulator.order);
  described = text;

  const int64_t L = s.length, B = s.batch, D = s.width, k = s.blocks(), state = B * D,
                rows = L * state;
  const int64_t kept = (L + sru::kStatesEvery - 1) / sru::kStatesEvery * state;
  const Tensor<T> u(rows * k, s.shift, true), x(s.has_x() ? rows : 0, s.shift, true);
  const Tensor<T> grad_h(rows, s.shift, true);
  const Tensor<S> v(s.has_weight_c ? 2 * D : 0, s.shift, true), bias(2 * D, s.shift, true);
  const Tensor<S> c0(s.has_c0 ? state : 0, s.shift, true),
      mask(s.has_mask ? state : 0, s.shift, true);
  const Tensor<S> grad_c_last(state, s.shift, true);
  const std::unique_ptr<Tensor<bool>> pad(make_padding(s));
  const Tensor<T> h(rows, s.shift, false), h_alone(rows, 0, false);
  const Tensor<S> c_last(state, s.shift, false), c_last_alone(state, 0, false);
  const Tensor<S> c(kept, s.shift, false);
  const Tensor<T> grad_u(rows * k, s.shift, false), grad_x(s.has_x() ? rows : 0, s.shift, false);
  const Tensor<S> gates(4 * state, s.shift, false), grad_c0(state, s.shift, false);
  const Tensor<S> grad_mask(s.has_mask ? state : 0, s.shift, false);

  const sru::Inputs<T> in{L,        B,          D,         int(k),  s.bidirectional,
                          S(scale), u.get(),    x.get(),   v.get(), bias.get(),
                          c0.get(), pad->get(), mask.get()};
  if (sru::forward_cuda<T>({in, h.get(), c_last.get(), c.get()}, nullptr) != cudaSuccess ||
      sru::forward_cuda<T>({in, h_alone.get(), c_last_alone.get(), nullptr}, nullptr) !=
          cudaSuccess ||
      sru::backward_cuda<T>(
          {in, c.get(), grad_h.get(), grad_c_last.get(), grad_u.get(), grad_x.get(), gates.get(),
           grad_c0.get(), grad_mask.get()},
          nullptr) != cudaSuccess) {
    abort();
  }

  const double sums = 4 * tolerance;  // of values over time
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t d = 0; d < D; ++d) {
      const int64_t at_state = in.state_at(b, d);
      const double v_f = v.get_or(d, 0), v_r = v.get_or(D + d, 0), b_f = bias[d], b_r = bias[D + d];
      const double m = mask.get_or(at_state, 1);
      const auto row = [&](int64_t i) { return in.row_at(in.time(d, i), b, d); };
      const auto u_at = [&](int64_t i, int j) { return in.u_at(in.time(d, i), b, d) + j * D; };
      const auto padded = [&](int64_t i) {
        return pad->get() && pad->get()[in.time(d, i) * B + b];
      };
      const auto skip = [&](int64_t i) {
        return k == 4 ? u[u_at(i, 3)] : s.has_x() ? scale * x[row(i)] : 0;
      };
      std::vector<double> before(L + 1), f(L), r(L);
      before[0] = c0.get_or(at_state, 0);
      for (int64_t i = 0; i < L; ++i) {
        const double prev = before[i];
        f[i] = 1 / (1 + std::exp(-(u[u_at(i, 0)] + v_f * prev + b_f)));
        r[i] = 1 / (1 + std::exp(-(u[u_at(i, 1)] + v_r * prev + b_r)));
        before[i + 1] = padded(i) ? prev : f[i] * prev + (1 - f[i]) * u[u_at(i, 2)];
        const double out = padded(i) ? 0 : skip(i) + (before[i + 1] - skip(i)) * m * r[i];
        compare("h", row(i), h[row(i)], out, tolerance);
        compare("h without c", row(i), h_alone[row(i)], h[row(i)], 0);
        if (i % sru::kStatesEvery == 0) {
          compare("c", i, c[i / sru::kStatesEvery * state + at_state], prev, tolerance);
        }
      }
      compare("c_last", at_state, c_last[at_state], before[L], tolerance);
      compare("c_last without c", at_state, c_last_alone[at_state], c_last[at_state], 0);
      double grad_c = grad_c_last[at_state], grad_v_f = 0, grad_v_r = 0, grad_b_f = 0, grad_b_r = 0,
             grad_m = 0;
      for (int64_t i = L - 1; i >= 0; --i) {
        double grad_u0 = 0, grad_u1 = 0, grad_u2 = 0, grad_s = 0;
        if (!padded(i)) {
          const double out = grad_h[row(i)], inner = before[i + 1] - skip(i);
          const double total = grad_c + out * m * r[i];
          grad_m += out * inner * r[i];
          grad_s = out * (1 - m * r[i]);
          grad_u0 = total * (before[i] - u[u_at(i, 2)]) * f[i] * (1 - f[i]);
          grad_u1 = out * inner * m * r[i] * (1 - r[i]);
          grad_u2 = total * (1 - f[i]);
          grad_c = total * f[i] + grad_u0 * v_f + grad_u1 * v_r;
          grad_v_f += grad_u0 * before[i];
          grad_v_r += grad_u1 * before[i];
          grad_b_f += grad_u0;
          grad_b_r += grad_u1;
        }
        compare("grad_u0", row(i), grad_u[u_at(i, 0)], grad_u0, tolerance);
        compare("grad_u1", row(i), grad_u[u_at(i, 1)], grad_u1, tolerance);
        compare("grad_u2", row(i), grad_u[u_at(i, 2)], grad_u2, tolerance);
        if (k == 4) {
          compare("grad_u3", row(i), grad_u[u_at(i, 3)], grad_s, tolerance);
        } else if (s.has_x()) {
          compare("grad_x", row(i), grad_x[row(i)], scale * grad_s, tolerance);
        }
      }
      const int64_t at_gates = 4 * b * D + d;
      compare("grad_v_f", d, gates[at_gates], grad_v_f, sums);
      compare("grad_v_r", d, gates[at_gates + D], grad_v_r, sums);
      compare("grad_b_f", d, gates[at_gates + 2 * D], grad_b_f, sums);
      compare("grad_b_r", d, gates[at_gates + 3 * D], grad_b_r, sums);
      compare("grad_c0", at_state, grad_c0[at_state], grad_c, sums);
      if (s.has_mask) {
        compare("grad_mask", at_state, grad_mask[at_state], grad_m, sums);
      }
    }
  }
  ++cases;
}

}  // namespace

int main(int count, char** arguments) {
  const int wanted = count > 1 ? atoi(arguments[1]) : 100;
  generator.seed(count > 2 ? atoi(arguments[2]) : 1);
  sru::warp::emulator.fault = sru::warp::Fault(count > 3 ? atoi(arguments[3]) : 0);
  for (int i = 0; i < wanted && wrong == 0; ++i) {
    switch (below(6)) {
      case 0:
        run_case<double>(1e-10);
        break;
      case 1:
        run_case<float>(5e-5);
        break;
      case 2:
      case 3:
        run_case<__nv_bfloat16>(1.5e-2);
        break;
      default:
        run_case<__half>(2e-3);
    }
  }
  printf(
      "%ld cases, %ld wrong values, %zu kinds of kernels\n", long(cases), long(wrong),
      sru::warp::emulator.programs.size());
  return wrong > 0;
}
