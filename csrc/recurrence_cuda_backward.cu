#include "recurrence_cuda.h"

namespace sru {

// A lane of the backward kernel, whose first step is the last of the forward pass.
template <typename T, int V, int Chunk, bool Padding>
class BackwardLane {
 public:
  using S = State<T>;
  static constexpr int kRow = kLanes * V * int(sizeof(T));  // bytes of a tile's row
  static constexpr int kPrev = 5 * kRow;  // after u0, u1, u2, highway and grad_h: the state before
  static constexpr int kStage = kPrev + kLanes * V * int(sizeof(S));
  static constexpr int kCopies = (kStage / Chunk + kLanes - 1) / kLanes;

  SRU_INLINE BackwardLane(const Backward<T>& a, int64_t index, int lane, char* ring)
      : a_(a), channels_(a, index, lane), ring_(ring) {
    for (int i = 0; i < kCopies; ++i) {
      copies_[i] = copy((lane + i * kLanes) * Chunk);
    }
    if (a.blocks == 3 && !a.x) {
      const S zero[V] = {};
      for (int slot = 0; slot < kStages; ++slot) {
        store<V>(reinterpret_cast<T*>(row(slot, 3)) + channels_.row_lane * V, zero);
      }
    }
    const int64_t b = channels_.b, channel = channels_.channel;
    const Walk walk(a, channel, true);
    for (int i = 0; i < V; ++i) {
      first_state_[i] = channels_.initial_state(a, i);
      state_[i] = a.length > 0 ? a.c[a.row_at(walk.t, b, channel) + i] : first_state_[i];
      grad_c_[i] = a.grad_c_last[a.state_at(b, channel) + i];
    }
    last_ = static_cast<int>(a.length) - 1;
    row_stride_ = walk.sign * a.batch * a.width;
    grad_u_ = a.grad_u + a.u_at(walk.t, b, channel);
    const bool inside = a.blocks == 4;
    stores_s_ = inside || a.x;
    s_stride_ = inside ? row_stride_ * 4 : row_stride_;
    grad_s_ = inside ? grad_u_ + 3 * a.width : a.grad_x + a.row_at(walk.t, b, channel);
  }

  SRU_INLINE void fetch(int step, int slot) {
    for (int i = 0; i < kCopies; ++i) {
      if (step < copies_[i].steps) {
        copy_chunk<Chunk>(row(slot, 0) + (channels_.lane + i * kLanes) * Chunk, copies_[i].from);
      }
      copies_[i].from += copies_[i].stride;
    }
    if (step == last_) {
      store<V>(reinterpret_cast<S*>(row(slot, 0) + kPrev) + channels_.row_lane * V, first_state_);
    }
  }

  // Reads the step two after the one it goes on to.
  SRU_INLINE void read(int slot) {
    now_ = next_;
    next_ = after_;
    for (int j = 0; j < 5; ++j) {
      after_.row[j] = hold<T, V>(row(slot, j), channels_.row_lane);
    }
    after_.prev = hold<S, V>(row(slot, 0) + kPrev, channels_.row_lane);
  }

  SRU_INLINE void look_for_padding(int first) {
    if constexpr (Padding) {
      channels_.look_for_padding(a_, first, true);
    }
  }

  SRU_INLINE void advance(int step) {
    const bool padded = Padding && (channels_.padded >> step % 32 & 1);
    S u0[V], u1[V], u2[V], s[V], grad_h[V], prev[V];
    widen(now_.row[0], u0);
    widen(now_.row[1], u1);
    widen(now_.row[2], u2);
    widen(now_.row[3], s);
    widen(now_.row[4], grad_h);
    widen(now_.prev, prev);
    for (int i = 0; i < V; ++i) {
      StepGrad<S> grad = backward_step(
          channels_.gates[i], channels_.mask[i], u0[i], u1[i], u2[i], channels_.scale * s[i],
          prev[i], state_[i], grad_h[i], grad_c_[i]);
      if (padded) {
        grad = {0, 0, 0, 0, grad_c_[i], 0};
      }
      state_[i] = prev[i];
      grad_c_[i] = grad.prev;
      grad_mask_[i] += grad.mask;
      grad_v_f_[i] += grad.u0 * prev[i];
      grad_v_r_[i] += grad.u1 * prev[i];
      grad_b_f_[i] += grad.u0;
      grad_b_r_[i] += grad.u1;
      u0[i] = grad.u0;
      u1[i] = grad.u1;
      u2[i] = grad.u2;
      s[i] = channels_.scale * grad.s;
    }
    store<V>(grad_u_, u0);
    store<V>(grad_u_ + a_.width, u1);
    store<V>(grad_u_ + 2 * a_.width, u2);
    if (stores_s_) {
      store<V>(grad_s_, s);
    }
    grad_u_ += row_stride_ * a_.blocks;
    grad_s_ += s_stride_;
  }

  SRU_INLINE void finish() const {
    S* gates = a_.grad_gates + channels_.b * 4 * a_.width + channels_.channel;
    store<V>(gates, grad_v_f_);
    store<V>(gates + a_.width, grad_v_r_);
    store<V>(gates + 2 * a_.width, grad_b_f_);
    store<V>(gates + 3 * a_.width, grad_b_r_);
    const int64_t state_at = a_.state_at(channels_.b, channels_.channel);
    store<V>(a_.grad_c0 + state_at, grad_c_);
    if (a_.grad_mask_c) {
      store<V>(a_.grad_mask_c + state_at, grad_mask_);
    }
  }

 private:
  struct Step {
    Held<T, V> row[5];
    Held<S, V> prev;
  };

  SRU_INLINE char* row(int slot, int j) const { return ring_ + slot * kStage + j * kRow; }

  // The copy of the chunk that lies `at` bytes into a stage.
  SRU_INLINE Copy copy(int at) const {
    const int64_t channel = channels_.tile + (at < kPrev ? at % kRow / int(sizeof(T))
                                                         : (at - kPrev) / int(sizeof(S)));
    if (at >= kStage || channel >= a_.width) {
      return {};
    }
    const Walk walk(a_, channel, true);
    const int64_t b = channels_.b, stride = walk.sign * a_.batch * a_.width;
    const int steps = static_cast<int>(a_.length);
    if (at < 4 * kRow) {
      return input_copy<T>(a_, walk, b, channel, at / kRow);
    }
    if (at < kPrev) {
      const T* from = a_.grad_h + a_.row_at(walk.t, b, channel);
      return {reinterpret_cast<const char*>(from), stride * int64_t(sizeof(T)), steps};
    }
    const S* from = a_.c + a_.row_at(walk.t, b, channel) + stride;
    const int inside = (at - kPrev) % int(sizeof(S));  // a chunk of 2 bytes is half a state
    return {reinterpret_cast<const char*>(from) + inside, stride * int64_t(sizeof(S)), steps - 1};
  }

  const Backward<T>& a_;
  Channels<T, V> channels_;
  char* ring_;
  Copy copies_[kCopies];
  Step now_, next_, after_;
  S first_state_[V], state_[V], grad_c_[V];
  S grad_mask_[V] = {}, grad_v_f_[V] = {}, grad_v_r_[V] = {}, grad_b_f_[V] = {}, grad_b_r_[V] = {};
  int last_;
  int64_t row_stride_, s_stride_;
  T *grad_u_, *grad_s_;
  bool stores_s_;
};

template <typename T, int V, int Chunk, bool Padding>
__global__ void __launch_bounds__(kLanes)
    backward_kernel(const __grid_constant__ Backward<T> args) {
  using Lane = BackwardLane<T, V, Chunk, Padding>;
  __shared__ alignas(16) char ring[kStages * Lane::kStage];
  Lane lane(args, blockIdx.x, threadIdx.x, ring);
  walk<1>(&lane, static_cast<int>(args.length));
  lane.finish();
}

template <typename T>
cudaError_t backward_cuda(const Backward<T>& args, cudaStream_t stream) {
  const bool whole = has_whole_chunks(
      args, args.x, args.c, args.grad_h, args.grad_u, args.grad_x, args.grad_gates, args.grad_c0,
      args.grad_mask_c);
  return choose_tiles<T>(args, whole, [&](auto v, auto chunk) {
    const auto kernel = args.pad ? backward_kernel<T, v(), chunk(), true>
                                 : backward_kernel<T, v(), chunk(), false>;
    kernel<<<tiles<T, v()>(args), kLanes, 0, stream>>>(args);
    return cudaGetLastError();
  });
}

template cudaError_t backward_cuda(const Backward<float>&, cudaStream_t);
template cudaError_t backward_cuda(const Backward<double>&, cudaStream_t);
template cudaError_t backward_cuda(const Backward<__half>&, cudaStream_t);
template cudaError_t backward_cuda(const Backward<__nv_bfloat16>&, cudaStream_t);

}  // namespace sru
