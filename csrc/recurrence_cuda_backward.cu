#include "recurrence_cuda.h"

namespace sru {

// One step of the ring.
template <typename T, int V>
struct BackwardStage {
  Pack<T, V> u[3][kThreads], s[kThreads], grad_h[kThreads];
  Pack<State<T>, V> prev[kThreads];
  uint32_t pad[kThreads];
};

template <typename T, int V>
SRU_INLINE void backward_columns(
    const Backward<T>& a, int64_t index, BackwardStage<T, V>* ring, int lane) {
  using S = State<T>;
  const Columns<T, V> columns(a, index);
  const int64_t b = columns.b, channel = columns.channel;
  const int64_t state_at = a.state_at(b, channel);
  // The last step comes first, and strides are taken backwards.
  const int64_t t = a.time(channel, a.length - 1);

  const T* next_u = a.u + a.u_at(t, b, channel);
  const T* next_s = columns.highway(a, t);
  const T* next_grad_h = a.grad_h + a.row_at(t, b, channel);
  const S* next_prev = a.c + a.row_at(t, b, channel) - columns.row_stride;
  const bool* next_pad = a.pad ? a.pad + t * a.batch + b : nullptr;
  auto fetch_step = [&](int64_t done) {
    if (done < a.length) {
      BackwardStage<T, V>& stage = ring[done & (kStages - 1)];
      for (int j = 0; j < 3; ++j) {
        fetch(&stage.u[j][lane], pack<V>(next_u + j * a.width));
      }
      next_u -= columns.u_stride;
      fetch(&stage.grad_h[lane], pack<V>(next_grad_h));
      next_grad_h -= columns.row_stride;
      if (done < a.length - 1) {
        fetch(&stage.prev[lane], pack<V>(next_prev));
        next_prev -= columns.row_stride;
      }
      if (next_s) {
        fetch(&stage.s[lane], pack<V>(next_s));
        next_s -= columns.s_stride;
      }
      if (next_pad) {
        fetch(&stage.pad[lane], pad_word(next_pad));
        next_pad -= columns.pad_stride;
      }
    }
    fetch_end_stage();
  };
  for (int64_t done = 0; done < kStages - 1; ++done) {
    fetch_step(done);
  }

  Pack<S, V> state, first_state, grad_c, grad_mask{}, grad_v_f{}, grad_v_r{}, grad_b_f{},
      grad_b_r{};
  for (int i = 0; i < V; ++i) {
    first_state.at[i] = columns.initial_state(a, i);
    state.at[i] = a.length > 0 ? a.c[a.row_at(t, b, channel) + i] : first_state.at[i];
    grad_c.at[i] = a.grad_c_last[state_at + i];
  }
  const bool* pad = a.pad ? a.pad + t * a.batch + b : nullptr;
  T* grad_u = a.grad_u + a.u_at(t, b, channel);
  T* grad_s = a.blocks == 4 ? grad_u + 3 * a.width
              : a.x         ? a.grad_x + a.row_at(t, b, channel)
                            : nullptr;
  for (int64_t done = 0; done < a.length; ++done) {
    fetch_step(done + kStages - 1);
    fetch_wait();
    const BackwardStage<T, V>& stage = ring[done & (kStages - 1)];
    const bool padded = pad && pad_flag(pad, stage.pad[lane]);
    Pack<T, V> out[4];
    for (int i = 0; i < V; ++i) {
      const S prev = done < a.length - 1 ? stage.prev[lane].at[i] : first_state.at[i];
      const S s = grad_s ? columns.scale * widen(stage.s[lane].at[i]) : 0;
      StepGrad<S> grad = backward_step(
          columns.gates[i], columns.mask[i], widen(stage.u[0][lane].at[i]),
          widen(stage.u[1][lane].at[i]), widen(stage.u[2][lane].at[i]), s, prev, state.at[i],
          widen(stage.grad_h[lane].at[i]), grad_c.at[i]);
      if (padded) {
        grad = {0, 0, 0, 0, grad_c.at[i], 0};
      }
      state.at[i] = prev;
      grad_c.at[i] = grad.prev;
      grad_mask.at[i] += grad.mask;
      grad_v_f.at[i] += grad.u0 * prev;
      grad_v_r.at[i] += grad.u1 * prev;
      grad_b_f.at[i] += grad.u0;
      grad_b_r.at[i] += grad.u1;
      narrow(grad.u0, out[0].at[i]);
      narrow(grad.u1, out[1].at[i]);
      narrow(grad.u2, out[2].at[i]);
      narrow(columns.scale * grad.s, out[3].at[i]);
    }
    for (int j = 0; j < 3; ++j) {
      *pack<V>(grad_u + j * a.width) = out[j];
    }
    grad_u -= columns.u_stride;
    if (grad_s) {
      *pack<V>(grad_s) = out[3];
      grad_s -= columns.s_stride;
    }
    if (pad) {
      pad -= columns.pad_stride;
    }
  }
  S* grad_gates = a.grad_gates + b * 4 * a.width + channel;
  *pack<V>(grad_gates) = grad_v_f;
  *pack<V>(grad_gates + a.width) = grad_v_r;
  *pack<V>(grad_gates + 2 * a.width) = grad_b_f;
  *pack<V>(grad_gates + 3 * a.width) = grad_b_r;
  *pack<V>(a.grad_c0 + state_at) = grad_c;
  if (a.grad_mask_c) {
    *pack<V>(a.grad_mask_c + state_at) = grad_mask;
  }
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const __grid_constant__ Backward<T> args) {
  __shared__ BackwardStage<T, V> ring[kStages];
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (index < args.batch * (args.width / V)) {
    backward_columns<T, V>(args, index, ring, threadIdx.x);
  }
}

template <typename T, int V>
cudaError_t launch_backward(const Backward<T>& args, cudaStream_t stream) {
  const int64_t blocks = (args.batch * (args.width / V) + kThreads - 1) / kThreads;
  backward_kernel<T, V><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t backward_cuda(const Backward<T>& args, cudaStream_t stream) {
  if constexpr (sizeof(T) == 2) {
    if (can_pair(
            args, args.x, args.c, args.grad_h, args.grad_u, args.grad_x, args.grad_gates,
            args.grad_c0, args.grad_mask_c)) {
      return launch_backward<T, 2>(args, stream);
    }
  }
  return launch_backward<T, 1>(args, stream);
}

template cudaError_t backward_cuda(const Backward<float>&, cudaStream_t);
template cudaError_t backward_cuda(const Backward<double>&, cudaStream_t);
template cudaError_t backward_cuda(const Backward<__half>&, cudaStream_t);
template cudaError_t backward_cuda(const Backward<__nv_bfloat16>&, cudaStream_t);

}  // namespace sru
