#include "recurrence_cuda.h"

namespace sru {

// One step of the ring.
template <typename T, int V>
struct ForwardStage {
  Pack<T, V> u[3][kThreads], s[kThreads];
  uint32_t pad[kThreads];
};

template <typename T, int V>
SRU_INLINE void forward_columns(
    const Forward<T>& a, int64_t index, ForwardStage<T, V>* ring, int lane) {
  using S = State<T>;
  const Columns<T, V> columns(a, index);
  const int64_t b = columns.b, channel = columns.channel, t = columns.first_t;
  Pack<S, V> state;
  for (int i = 0; i < V; ++i) {
    state.at[i] = columns.initial_state(a, i);
  }

  const T* next_u = a.u + a.u_at(t, b, channel);
  const T* next_s = columns.highway(a, t);
  const bool* next_pad = a.pad ? a.pad + t * a.batch + b : nullptr;
  auto fetch_step = [&](int64_t step) {
    if (step < a.length) {
      ForwardStage<T, V>& stage = ring[step & (kStages - 1)];
      for (int j = 0; j < 3; ++j) {
        fetch(&stage.u[j][lane], pack<V>(next_u + j * a.width));
      }
      next_u += columns.u_stride;
      if (next_s) {
        fetch(&stage.s[lane], pack<V>(next_s));
        next_s += columns.s_stride;
      }
      if (next_pad) {
        fetch(&stage.pad[lane], pad_word(next_pad));
        next_pad += columns.pad_stride;
      }
    }
    fetch_end_stage();
  };
  for (int64_t step = 0; step < kStages - 1; ++step) {
    fetch_step(step);
  }

  const bool* pad = next_pad ? a.pad + t * a.batch + b : nullptr;
  T* h = a.h + a.row_at(t, b, channel);
  S* c = a.c ? a.c + a.row_at(t, b, channel) : nullptr;
  for (int64_t step = 0; step < a.length; ++step) {
    fetch_step(step + kStages - 1);
    fetch_wait();
    const ForwardStage<T, V>& stage = ring[step & (kStages - 1)];
    const bool padded = pad && pad_flag(pad, stage.pad[lane]);
    Pack<T, V> out;
    for (int i = 0; i < V; ++i) {
      const S s = next_s ? columns.scale * widen(stage.s[lane].at[i]) : 0;
      const Step<S> next = forward_step(
          columns.gates[i], columns.mask[i], widen(stage.u[0][lane].at[i]),
          widen(stage.u[1][lane].at[i]), widen(stage.u[2][lane].at[i]), s, state.at[i]);
      state.at[i] = padded ? state.at[i] : next.c;
      narrow(padded ? S(0) : next.h, out.at[i]);
    }
    *pack<V>(h) = out;
    h += columns.row_stride;
    if (c) {
      *pack<V>(c) = state;
      c += columns.row_stride;
    }
    if (pad) {
      pad += columns.pad_stride;
    }
  }
  *pack<V>(a.c_last + a.state_at(b, channel)) = state;
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const __grid_constant__ Forward<T> args) {
  __shared__ ForwardStage<T, V> ring[kStages];
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (index < args.batch * (args.width / V)) {
    forward_columns<T, V>(args, index, ring, threadIdx.x);
  }
}

template <typename T, int V>
cudaError_t launch_forward(const Forward<T>& args, cudaStream_t stream) {
  const int64_t blocks = (args.batch * (args.width / V) + kThreads - 1) / kThreads;
  forward_kernel<T, V><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t forward_cuda(const Forward<T>& args, cudaStream_t stream) {
  if constexpr (sizeof(T) == 2) {
    if (can_pair(args, args.x, args.h, args.c_last, args.c)) {
      return launch_forward<T, 2>(args, stream);
    }
  }
  return launch_forward<T, 1>(args, stream);
}

template cudaError_t forward_cuda(const Forward<float>&, cudaStream_t);
template cudaError_t forward_cuda(const Forward<double>&, cudaStream_t);
template cudaError_t forward_cuda(const Forward<__half>&, cudaStream_t);
template cudaError_t forward_cuda(const Forward<__nv_bfloat16>&, cudaStream_t);

}  // namespace sru
