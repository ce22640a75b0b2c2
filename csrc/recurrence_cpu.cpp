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
constexpr int64_t kItems = 4;       // rows per thread below which their channels are divided
constexpr int64_t kFew = 2048;      // channels a thread sweeps: up to here it fetches rows ahead,
constexpr int64_t kAhead = 1024;    // this many channels

// What a thread reads and writes in place of absent tensors.
template <typename T>
struct Absent {
  std::array<State<T>, kTile> zero{}, one;
  std::array<T, kTile> highway{}, grad_highway;
  Absent() { one.fill(1); }
};

// How channels are cut into columns: as long as possible, yet as many for every thread. Cuts fall
// on whole vectors, so results do not depend on them.
struct Tiling {
  int64_t batch, directions, width, tile, tiles;  // width, tiles: of one direction

  template <typename T>
  explicit Tiling(const Inputs<T>& in)
      : batch(in.batch), directions(in.bidirectional ? 2 : 1), width(in.width / directions) {
    const int64_t threads = at::get_num_threads();
    const int64_t parts = batch * directions < kItems * threads ? threads : 1;
    tile = std::min(kTile, divide(divide(width, parts), kSmallTile) * kSmallTile);
    tiles = divide(width, tile);
  }

  int64_t columns() const { return batch * directions * tiles; }

  static int64_t divide(int64_t a, int64_t b) { return (a + b - 1) / b; }
};

// What a thread writes at every step it keeps to itself: from the tensors the results go to, its
// neighbour's hardware prefetching would fetch the lines again and again.
template <typename S>
using Running = std::array<S, kTile>;

// What the backward pass sums up over time for a column.
template <typename S>
struct Sums {
  Running<S> c, mask, v_f, v_r, b_f, b_r;
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
SRU_INLINE void prefetch(const T* row, int64_t size) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < size; i += kLine) {
    __builtin_prefetch(row + i);
  }
}

// What forward_row will read.
template <typename T>
SRU_INLINE void prefetch_row(const Forward<T>& a, const Column<T>& column, int64_t step) {
  const T* u = column.u(a, a.u, step);
  for (int block = 0; block < a.blocks; ++block) {
    prefetch(u + block * a.width, column.size);
  }
  if (a.x) {
    prefetch(column.row(a, a.x, step), column.size);
  }
}

// `running`: the state, if not all states are wanted.
template <typename T>
SRU_INLINE void forward_row(
    const Forward<T>& a, const Column<T>& column, const Absent<T>& absent, State<T>* running,
    int64_t step) {
  using S = State<T>;
  const int64_t n = column.size;
  const S* prev = step == 0 ? column.c0 : a.c ? column.row(a, a.c, step - 1) : running;
  S* c = a.c ? column.row(a, a.c, step) : running;
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
  const S scale = a.scale;
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
    const Backward<T>& a, const Column<T>& column, Absent<T>& absent, Sums<State<T>>& sums,
    int64_t step) {
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
  const S scale = a.scale;
  const S* c = column.row(a, a.c, step);
  const S* prev = step == 0 ? column.c0 : column.row(a, a.c, step - 1);
  const T* grad_h = column.row(a, a.grad_h, step);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const S f = forget_gate(column.gates(i), load(u0 + i), prev[i]);
    const S r = reset_gate(column.gates(i), load(u1 + i), prev[i]);
    const StepGrad<S> grad = backward_step(
        column.gates(i), column.mask[i], f, r, load(u2 + i), scale * load(s + i), prev[i], c[i],
        load(grad_h + i), sums.c[i]);
    store(grad_u0 + i, grad.u0);
    store(grad_u1 + i, grad.u1);
    store(grad_u2 + i, grad.u2);
    store(grad_s + i, scale * grad.s);
    sums.c[i] = grad.prev;
    sums.mask[i] += grad.mask;
    sums.v_f[i] += grad.u0 * prev[i];
    sums.v_r[i] += grad.u1 * prev[i];
    sums.b_f[i] += grad.u0;
    sums.b_r[i] += grad.u1;
  }
}

template <typename T>
SRU_INLINE void sweep(
    const Forward<T>& a, const std::vector<Column<T>>& columns, Absent<T>& absent) {
  using S = State<T>;
  const bool apart = !a.c && a.length > 1;
  std::vector<Running<S>> running(apart ? columns.size() : 0);
  const auto state = [&](size_t i) {
    return apart ? running[i].data() : columns[i].state(a, a.c_last);
  };
  const int64_t channels = int64_t(columns.size()) * columns[0].size;
  // Steps; none where there are many channels: hardware prefetching follows long rows by itself.
  const int64_t ahead = channels > kFew ? a.length : Tiling::divide(kAhead, channels);
  for (int64_t step = 0; step < a.length; ++step) {
    for (size_t i = 0; i < columns.size(); ++i) {
      if (step + ahead < a.length) {
        prefetch_row(a, columns[i], step + ahead);
      }
      forward_row(a, columns[i], absent, state(i), step);
    }
  }
  for (size_t i = 0; i < columns.size(); ++i) {
    const Column<T>& column = columns[i];
    const S* c = a.length == 0 ? column.c0 : a.c ? column.row(a, a.c, a.length - 1) : state(i);
    S* c_last = column.state(a, a.c_last);
    if (c != c_last) {
      std::copy(c, c + column.size, c_last);
    }
  }
}

template <typename T>
SRU_INLINE void sweep(
    const Backward<T>& a, const std::vector<Column<T>>& columns, Absent<T>& absent) {
  using S = State<T>;
  std::vector<Sums<S>> sums(columns.size());
  for (size_t i = 0; i < columns.size(); ++i) {
    std::copy_n(columns[i].state(a, a.grad_c_last), columns[i].size, sums[i].c.data());
  }
  for (int64_t step = a.length - 1; step >= 0; --step) {
    for (size_t i = 0; i < columns.size(); ++i) {
      backward_row(a, columns[i], absent, sums[i], step);
    }
  }
  for (size_t i = 0; i < columns.size(); ++i) {
    const Column<T>& column = columns[i];
    const auto write = [&](const Running<S>& sum, S* grad) {
      std::copy_n(sum.data(), column.size, grad + column.channel);
    };
    write(sums[i].c, a.grad_c0 + column.b * a.width);
    if (a.grad_mask_c) {
      write(sums[i].mask, a.grad_mask_c + column.b * a.width);
    }
    S* gates = a.grad_gates + column.b * 4 * a.width;
    for (const auto* sum : {&sums[i].v_f, &sums[i].v_r, &sums[i].b_f, &sums[i].b_r}) {
      write(*sum, gates);
      gates += a.width;
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
