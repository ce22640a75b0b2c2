// CPU kernel. Every thread owns a range of columns, swept together through time; the channels of a column are
// vectorised by the compiler, once per instruction set, and the best one the machine has is chosen at run time.
#include "recurrence.h"

#include <algorithm>
#include <array>
#include <vector>

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define SRU_X86
#define SRU_AVX2 __attribute__((target("avx2,fma")))
#if defined(__clang__)
#define SRU_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#else
#define SRU_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")))
#endif
#endif

namespace sru {
namespace {

constexpr int64_t kTile = 128;  // channels of one column
constexpr int64_t kGroup = 16;  // columns swept through time together: their state and sums stay in the L1 or L2 cache

SRU_INLINE float load(const float* p) { return *p; }
SRU_INLINE double load(const double* p) { return *p; }
SRU_INLINE float load(const c10::BFloat16* p) { return bit_cast<float>(uint32_t(p->x) << 16); }

SRU_INLINE void store(float* p, float value) { *p = value; }
SRU_INLINE void store(double* p, double value) { *p = value; }
SRU_INLINE void store(c10::BFloat16* p, float value) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
  p->x = uint16_t(value != value ? 0x7fc0 : rounded);
}

// What stands in for absent tensors.
template <typename T>
struct Defaults {
  std::array<State<T>, kTile> zero{}, one;
  std::array<T, kTile> no_highway{};
  Defaults() { one.fill(1); }
};

// A tile of at most kTile channels of one batch element, all of one direction.
template <typename T>
struct Column {
  using S = State<T>;
  int64_t batch, channel, size;
  bool reverse;
  const S *v_f, *v_r, *b_f, *b_r, *mask, *c0;

  Column(const Inputs<T>& in, const Defaults<T>& defaults, int64_t index) {
    const int64_t directions = in.bidirectional ? 2 : 1;
    const int64_t width = in.width / directions;
    const int64_t tiles = (width + kTile - 1) / kTile;
    batch = index / (directions * tiles);
    reverse = index / tiles % directions == 1;
    const int64_t first = index % tiles * kTile;
    channel = reverse * width + first;
    size = std::min(kTile, width - first);
    v_f = in.weight_c ? in.weight_c + channel : defaults.zero.data();
    v_r = in.weight_c ? in.weight_c + in.width + channel : defaults.zero.data();
    b_f = in.bias + channel;
    b_r = in.bias + in.width + channel;
    mask = in.mask_c ? in.mask_c + state(in) : defaults.one.data();
    c0 = in.c0 ? in.c0 + state(in) : defaults.zero.data();
  }

  static int64_t count(const Inputs<T>& in) {
    const int64_t directions = in.bidirectional ? 2 : 1;
    return in.batch * directions * ((in.width / directions + kTile - 1) / kTile);
  }

  SRU_INLINE Gates<S> gates(int64_t i) const { return {v_f[i], v_r[i], b_f[i], b_r[i]}; }

  // Offsets of the column's first element in a (B, D), an (L, B, D) and an (L, B, k, D) tensor.
  int64_t state(const Inputs<T>& in) const { return batch * in.width + channel; }
  int64_t row(const Inputs<T>& in, int64_t t) const { return t * in.batch * in.width + state(in); }
  int64_t u(const Inputs<T>& in, int64_t t) const {
    return (t * in.batch + batch) * in.blocks * in.width + channel;
  }
};

template <typename T>
SRU_INLINE void forward_row(const Forward<T>& a, const Defaults<T>& defaults, const Column<T>& column, int64_t step) {
  using S = State<T>;
  const int64_t t = column.reverse ? a.length - 1 - step : step;
  const int64_t before = column.reverse ? t + 1 : t - 1;
  const int64_t n = column.size;
  S* c_last = a.c_last + column.state(a);
  const S* prev = step == 0 ? column.c0 : a.c ? a.c + column.row(a, before) : c_last;
  S* c = a.c ? a.c + column.row(a, t) : c_last;
  T* h = a.h + column.row(a, t);
  if (a.pad && a.pad[t * a.batch + column.batch]) {
    std::copy(prev, prev + n, c);
    std::fill(h, h + n, T(0));
    return;
  }
  const T* u0 = a.u + column.u(a, t);
  const T* u1 = u0 + a.width;
  const T* u2 = u1 + a.width;
  const T* s = a.blocks == 4 ? u2 + a.width : a.x ? a.x + column.row(a, t) : defaults.no_highway.data();
  const S scale = a.x ? a.scale : 1;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const Step<S> next = forward_step(
        column.gates(i), column.mask[i], load(u0 + i), load(u1 + i), load(u2 + i), scale * load(s + i), prev[i]);
    c[i] = next.c;
    store(h + i, next.h);
  }
}

template <typename T>
SRU_INLINE void backward_row(
    const Backward<T>& a, const Defaults<T>& defaults, const Column<T>& column, int64_t step) {
  using S = State<T>;
  const int64_t t = column.reverse ? a.length - 1 - step : step;
  const int64_t before = column.reverse ? t + 1 : t - 1;
  const int64_t n = column.size;
  T* grad_u0 = a.grad_u + column.u(a, t);
  T* grad_u1 = grad_u0 + a.width;
  T* grad_u2 = grad_u1 + a.width;
  T no_highway[kTile];
  T* grad_s = a.blocks == 4 ? grad_u2 + a.width : a.x ? a.grad_x + column.row(a, t) : no_highway;
  if (a.pad && a.pad[t * a.batch + column.batch]) {
    for (T* grad : {grad_u0, grad_u1, grad_u2, grad_s}) {
      std::fill(grad, grad + n, T(0));
    }
    return;
  }
  const T* u0 = a.u + column.u(a, t);
  const T* u1 = u0 + a.width;
  const T* u2 = u1 + a.width;
  const T* s = a.blocks == 4 ? u2 + a.width : a.x ? a.x + column.row(a, t) : defaults.no_highway.data();
  const S scale = a.x ? a.scale : 1;
  const S* prev = step == 0 ? column.c0 : a.c + column.row(a, before);
  const S* c = a.c + column.row(a, t);
  const T* grad_h = a.grad_h + column.row(a, t);
  S no_mask[kTile];
  S* grad_mask = a.grad_mask_c ? a.grad_mask_c + column.state(a) : no_mask;
  S* grad_c = a.grad_c0 + column.state(a);
  S* grad_v_f = a.grad_gates + column.batch * 4 * a.width + column.channel;
  S* grad_v_r = grad_v_f + a.width;
  S* grad_b_f = grad_v_r + a.width;
  S* grad_b_r = grad_b_f + a.width;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const StepGrad<S> grad = backward_step(
        column.gates(i), column.mask[i], load(u0 + i), load(u1 + i), load(u2 + i), scale * load(s + i), prev[i],
        c[i], load(grad_h + i), grad_c[i]);
    store(grad_u0 + i, grad.u0);
    store(grad_u1 + i, grad.u1);
    store(grad_u2 + i, grad.u2);
    store(grad_s + i, scale * grad.s);
    grad_c[i] = grad.prev;
    grad_v_f[i] += grad.u0 * prev[i];
    grad_v_r[i] += grad.u1 * prev[i];
    grad_b_f[i] += grad.u0;
    grad_b_r[i] += grad.u1;
    grad_mask[i] += grad.mask;
  }
}

template <typename T>
SRU_INLINE void sweep(const Forward<T>& a, const Defaults<T>& defaults, const std::vector<Column<T>>& columns) {
  for (int64_t step = 0; step < a.length; ++step) {
    for (const Column<T>& column : columns) {
      forward_row(a, defaults, column, step);
    }
  }
  for (const Column<T>& column : columns) {
    const int64_t t = column.reverse ? 0 : a.length - 1;
    const State<T>* c = a.length == 0 ? column.c0 : a.c ? a.c + column.row(a, t) : nullptr;
    if (c) {
      std::copy(c, c + column.size, a.c_last + column.state(a));
    }
  }
}

template <typename T>
SRU_INLINE void sweep(const Backward<T>& a, const Defaults<T>& defaults, const std::vector<Column<T>>& columns) {
  using S = State<T>;
  for (const Column<T>& column : columns) {
    const S* grad_c_last = a.grad_c_last + column.state(a);
    std::copy(grad_c_last, grad_c_last + column.size, a.grad_c0 + column.state(a));
    for (int64_t i = 0; i < 4; ++i) {
      S* grad = a.grad_gates + (column.batch * 4 + i) * a.width + column.channel;
      std::fill(grad, grad + column.size, S(0));
    }
    if (a.grad_mask_c) {
      S* grad = a.grad_mask_c + column.state(a);
      std::fill(grad, grad + column.size, S(0));
    }
  }
  for (int64_t step = a.length - 1; step >= 0; --step) {
    for (const Column<T>& column : columns) {
      backward_row(a, defaults, column, step);
    }
  }
}

#ifdef SRU_X86
template <typename Args, typename... Rest>
SRU_AVX512 void sweep_avx512(const Args& args, const Rest&... rest) {
  sweep(args, rest...);
}

template <typename Args, typename... Rest>
SRU_AVX2 void sweep_avx2(const Args& args, const Rest&... rest) {
  sweep(args, rest...);
}
#endif

template <typename Args, typename... Rest>
void sweep_best(const Args& args, const Rest&... rest) {
#ifdef SRU_X86
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return sweep_avx512(args, rest...);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return sweep_avx2(args, rest...);
  }
#endif
  sweep(args, rest...);
}

template <typename T, typename Args>
void run(const Args& args) {
  at::parallel_for(0, Column<T>::count(args), 1, [&](int64_t begin, int64_t end) {
    const Defaults<T> defaults;
    std::vector<Column<T>> columns;
    for (int64_t index = begin; index < end; ++index) {
      columns.emplace_back(args, defaults, index);
      if (int64_t(columns.size()) == kGroup || index == end - 1) {
        sweep_best(args, defaults, columns);
        columns.clear();
      }
    }
  });
}

}  // namespace

template <typename T>
void forward_cpu(const Forward<T>& args) {
  run<T>(args);
}

template <typename T>
void backward_cpu(const Backward<T>& args) {
  run<T>(args);
}

template void forward_cpu(const Forward<float>&);
template void forward_cpu(const Forward<double>&);
template void forward_cpu(const Forward<c10::BFloat16>&);
template void backward_cpu(const Backward<float>&);
template void backward_cpu(const Backward<double>&);
template void backward_cpu(const Backward<c10::BFloat16>&);

}  // namespace sru
