// CPU kernel. Every thread owns a range of columns, swept together through time; the channels of a
// column are vectorised by the compiler, once per instruction set, and the best one the machine has
// is chosen at run time.
#include <algorithm>
#include <array>
#include <vector>

#include <ATen/Parallel.h>

#include "cpu.h"

namespace sru {
namespace {

constexpr int64_t kTile = 512;      // most channels of one column
constexpr int64_t kSmallTile = 64;  // their divisor: whole vectors of any type and instruction set
constexpr size_t kGroup = 16;       // columns swept through time together
constexpr int64_t kItems = 4;       // least columns per thread, where channels can be divided

// What a thread reads and writes in place of absent tensors.
template <typename T>
struct Absent {
  std::array<State<T>, kTile> zero{}, one, grad_mask{};
  std::array<T, kTile> highway{}, grad_highway;
  Absent() { one.fill(1); }
};

// How channels are cut into columns: as long as possible, yet enough to keep every thread busy.
// Cuts fall on whole vectors, so results do not depend on them.
struct Tiling {
  int64_t batch, directions, width, tile, tiles;  // width, tiles: of one direction

  template <typename T>
  explicit Tiling(const Inputs<T>& in)
      : batch(in.batch), directions(in.bidirectional ? 2 : 1), width(in.width / directions) {
    const int64_t wanted = divide(kItems * at::get_num_threads(), batch * directions);
    tile = std::min(kTile, divide(divide(width, wanted), kSmallTile) * kSmallTile);
    tiles = divide(width, tile);
  }

  int64_t columns() const { return batch * directions * tiles; }

  static int64_t divide(int64_t a, int64_t b) { return (a + b - 1) / b; }
};

// Adjacent channels of one batch element and one direction.
template <typename T>
struct Column {
  using S = State<T>;
  int64_t b, channel, size;
  const S *v_f, *v_r, *b_f, *b_r, *mask, *c0;

  Column(const Inputs<T>& in, const Absent<T>& absent, const Tiling& tiling, int64_t index) {
    const int64_t first = index % tiling.tiles * tiling.tile;
    b = index / (tiling.directions * tiling.tiles);
    channel = index / tiling.tiles % tiling.directions * tiling.width + first;
    size = std::min(tiling.tile, tiling.width - first);
    v_f = in.weight_c ? in.weight_c + channel : absent.zero.data();
    v_r = in.weight_c ? in.weight_c + in.width + channel : absent.zero.data();
    b_f = in.bias + channel;
    b_r = in.bias + in.width + channel;
    mask = in.mask_c ? in.mask_c + in.state_at(b, channel) : absent.one.data();
    c0 = in.c0 ? in.c0 + in.state_at(b, channel) : absent.zero.data();
  }

  SRU_INLINE Gates<S> gates(int64_t i) const { return {v_f[i], v_r[i], b_f[i], b_r[i]}; }

  // The column's elements of (B, D), (L, B, D) and (L, B, k, D) tensors at a step of its direction.
  template <typename P>
  SRU_INLINE P* state(const Inputs<T>& in, P* p) const {
    return p + in.state_at(b, channel);
  }
  template <typename P>
  SRU_INLINE P* row(const Inputs<T>& in, P* p, int64_t step) const {
    return p + in.row_at(in.time(channel, step), b, channel);
  }
  template <typename P>
  SRU_INLINE P* u(const Inputs<T>& in, P* p, int64_t step) const {
    return p + in.u_at(in.time(channel, step), b, channel);
  }
  SRU_INLINE bool padded(const Inputs<T>& in, int64_t step) const {
    return in.pad && in.pad[in.time(channel, step) * in.batch + b];
  }
  SRU_INLINE const T* highway(const Inputs<T>& in, const Absent<T>& absent, int64_t step) const {
    return in.blocks == 4 ? u(in, in.u, step) + 3 * in.width
           : in.x         ? row(in, in.x, step)
                          : absent.highway.data();
  }
};

template <typename T>
SRU_INLINE void forward_row(
    const Forward<T>& a, const Column<T>& column, const Absent<T>& absent, int64_t step) {
  using S = State<T>;
  const int64_t n = column.size;
  S* c_last = column.state(a, a.c_last);
  const S* prev = step == 0 ? column.c0 : a.c ? column.row(a, a.c, step - 1) : c_last;
  S* c = a.c ? column.row(a, a.c, step) : c_last;
  T* h = column.row(a, a.h, step);
  if (column.padded(a, step)) {
    std::copy(prev, prev + n, c);
    std::fill(h, h + n, T(0));
    return;
  }
  const T* u0 = column.u(a, a.u, step);
  const T* u1 = u0 + a.width;
  const T* u2 = u1 + a.width;
  const T* s = column.highway(a, absent, step);
  const S scale = a.x ? a.scale : 1;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const Step<S> next = forward_step(
        column.gates(i), column.mask[i], load(u0 + i), load(u1 + i), load(u2 + i),
        scale * load(s + i), prev[i]);
    c[i] = next.c;
    store(h + i, next.h);
  }
}

template <typename T>
SRU_INLINE void backward_row(
    const Backward<T>& a, const Column<T>& column, Absent<T>& absent, int64_t step) {
  using S = State<T>;
  const int64_t n = column.size;
  T* grad_u0 = column.u(a, a.grad_u, step);
  T* grad_u1 = grad_u0 + a.width;
  T* grad_u2 = grad_u1 + a.width;
  T* grad_s = a.blocks == 4 ? grad_u2 + a.width
              : a.x         ? column.row(a, a.grad_x, step)
                            : absent.grad_highway.data();
  if (column.padded(a, step)) {
    for (T* grad : {grad_u0, grad_u1, grad_u2, grad_s}) {
      std::fill(grad, grad + n, T(0));
    }
    return;
  }
  const T* u0 = column.u(a, a.u, step);
  const T* u1 = u0 + a.width;
  const T* u2 = u1 + a.width;
  const T* s = column.highway(a, absent, step);
  const S scale = a.x ? a.scale : 1;
  const S* c = column.row(a, a.c, step);
  const S* prev = step == 0 ? column.c0 : column.row(a, a.c, step - 1);
  const T* grad_h = column.row(a, a.grad_h, step);
  S* grad_c = column.state(a, a.grad_c0);
  S* grad_mask = a.grad_mask_c ? column.state(a, a.grad_mask_c) : absent.grad_mask.data();
  S* grad_v_f = a.grad_gates + column.b * 4 * a.width + column.channel;
  S* grad_v_r = grad_v_f + a.width;
  S* grad_b_f = grad_v_r + a.width;
  S* grad_b_r = grad_b_f + a.width;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const StepGrad<S> grad = backward_step(
        column.gates(i), column.mask[i], load(u0 + i), load(u1 + i), load(u2 + i),
        scale * load(s + i), prev[i], c[i], load(grad_h + i), grad_c[i]);
    store(grad_u0 + i, grad.u0);
    store(grad_u1 + i, grad.u1);
    store(grad_u2 + i, grad.u2);
    store(grad_s + i, scale * grad.s);
    grad_c[i] = grad.prev;
    grad_mask[i] += grad.mask;
    grad_v_f[i] += grad.u0 * prev[i];
    grad_v_r[i] += grad.u1 * prev[i];
    grad_b_f[i] += grad.u0;
    grad_b_r[i] += grad.u1;
  }
}

template <typename T>
SRU_INLINE void sweep(
    const Forward<T>& a, const std::vector<Column<T>>& columns, Absent<T>& absent) {
  for (int64_t step = 0; step < a.length; ++step) {
    for (const Column<T>& column : columns) {
      forward_row(a, column, absent, step);
    }
  }
  for (const Column<T>& column : columns) {
    State<T>* c_last = column.state(a, a.c_last);
    const State<T>* c = a.length == 0 ? column.c0 : a.c ? column.row(a, a.c, a.length - 1) : c_last;
    std::copy(c, c + column.size, c_last);
  }
}

template <typename T>
SRU_INLINE void sweep(
    const Backward<T>& a, const std::vector<Column<T>>& columns, Absent<T>& absent) {
  using S = State<T>;
  for (const Column<T>& column : columns) {
    const S* grad_c_last = column.state(a, a.grad_c_last);
    std::copy(grad_c_last, grad_c_last + column.size, column.state(a, a.grad_c0));
    if (a.grad_mask_c) {
      std::fill_n(column.state(a, a.grad_mask_c), column.size, S(0));
    }
    for (int64_t i = 0; i < 4; ++i) {
      std::fill_n(a.grad_gates + (column.b * 4 + i) * a.width + column.channel, column.size, S(0));
    }
  }
  for (int64_t step = a.length - 1; step >= 0; --step) {
    for (const Column<T>& column : columns) {
      backward_row(a, column, absent, step);
    }
  }
}

template <typename Args, typename T>
struct Sweep {
  const Args& args;
  const std::vector<Column<T>>& columns;
  Absent<T>& absent;
  SRU_INLINE void operator()() const { sweep(args, columns, absent); }
};

template <typename T, typename Args>
void run(const Args& args) {
  const Tiling tiling(args);
  at::parallel_for(0, tiling.columns(), 1, [&](int64_t begin, int64_t end) {
    Absent<T> absent;
    std::vector<Column<T>> columns;
    for (int64_t index = begin; index < end; ++index) {
      columns.emplace_back(args, absent, tiling, index);
      if (columns.size() == kGroup || index == end - 1) {
        run_best(Sweep<Args, T>{args, columns, absent});
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
