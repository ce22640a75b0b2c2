#include "recurrence_cuda.h"

namespace sru {

// A lane of the forward kernel.
template <typename T, int V, int Chunk, bool Padding>
class ForwardLane {
 public:
  using S = State<T>;
  static constexpr int kRow = kLanes * V * int(sizeof(T));  // bytes of a tile's row
  static constexpr int kStage = 4 * kRow;                   // u0, u1, u2, highway
  static constexpr int kCopies = (kStage / Chunk + kLanes - 1) / kLanes;

  SRU_INLINE ForwardLane(const Forward<T>& a, int64_t index, int lane, char* ring)
      : a_(a), channels_(a, index, lane), ring_(ring) {
    for (int i = 0; i < kCopies; ++i) {
      const int at = (lane + i * kLanes) * Chunk;
      const int64_t channel = channels_.tile + at % kRow / int(sizeof(T));
      if (at < kStage && channel < a.width) {
        copies_[i] = input_copy<T>(a, Walk(a, channel, false), channels_.b, channel, at / kRow);
      }
    }
    if (a.blocks == 3 && !a.x) {
      const S zero[V] = {};
      for (int slot = 0; slot < kStages; ++slot) {
        store<V>(reinterpret_cast<T*>(row(slot, 3)) + channels_.row_lane * V, zero);
      }
    }
    for (int i = 0; i < V; ++i) {
      state_[i] = channels_.initial_state(a, i);
    }
    const Walk walk(a, channels_.channel, false);
    row_stride_ = walk.sign * a.batch * a.width;
    h_ = a.h + a.row_at(walk.t, channels_.b, channels_.channel);
    c_ = a.c ? a.c + a.row_at(walk.t, channels_.b, channels_.channel) : nullptr;
    stores_c_ = a.c != nullptr;
  }

  SRU_INLINE void fetch(int step, int slot) {
    for (int i = 0; i < kCopies; ++i) {
      if (step < copies_[i].steps) {
        copy_chunk<Chunk>(row(slot, 0) + (channels_.lane + i * kLanes) * Chunk, copies_[i].from);
      }
      copies_[i].from += copies_[i].stride;
    }
  }

  // Reads the step two after the one it goes on to.
  SRU_INLINE void read(int slot) {
    for (int j = 0; j < 4; ++j) {
      now_[j] = next_[j];
      next_[j] = after_[j];
      after_[j] = hold<T, V>(row(slot, j), channels_.row_lane);
    }
  }

  SRU_INLINE void look_for_padding(int first) {
    if constexpr (Padding) {
      channels_.look_for_padding(a_, first, false);
    }
  }

  SRU_INLINE void advance(int step) {
    const bool padded = Padding && (channels_.padded >> step % 32 & 1);
    S u0[V], u1[V], u2[V], s[V], h[V];
    widen(now_[0], u0);
    widen(now_[1], u1);
    widen(now_[2], u2);
    widen(now_[3], s);
    for (int i = 0; i < V; ++i) {
      const Step<S> next = forward_step(
          channels_.gates[i], channels_.mask[i], u0[i], u1[i], u2[i], channels_.scale * s[i],
          state_[i]);
      state_[i] = padded ? state_[i] : next.c;
      h[i] = padded ? S(0) : next.h;
    }
    store<V>(h_, h);
    if (stores_c_) {
      store<V>(c_, state_);
    }
    h_ += row_stride_;
    c_ += row_stride_;
  }

  SRU_INLINE void finish() const {
    store<V>(a_.c_last + a_.state_at(channels_.b, channels_.channel), state_);
  }

 private:
  SRU_INLINE char* row(int slot, int j) const { return ring_ + slot * kStage + j * kRow; }

  const Forward<T>& a_;
  Channels<T, V> channels_;
  char* ring_;
  Copy copies_[kCopies];
  Held<T, V> now_[4], next_[4], after_[4];
  S state_[V];
  int64_t row_stride_;
  T* h_;
  S* c_;
  bool stores_c_;
};

template <typename T, int V, int Chunk, bool Padding>
__global__ void __launch_bounds__(kLanes)
    forward_kernel(const __grid_constant__ Forward<T> args) {
  using Lane = ForwardLane<T, V, Chunk, Padding>;
  __shared__ alignas(16) char ring[kStages * Lane::kStage];
  Lane lane(args, blockIdx.x, threadIdx.x, ring);
  walk<1>(&lane, static_cast<int>(args.length));
  lane.finish();
}

template <typename T>
cudaError_t forward_cuda(const Forward<T>& args, cudaStream_t stream) {
  const bool whole = has_whole_chunks(args, args.x, args.h, args.c_last, args.c);
  return choose_tiles<T>(args, whole, [&](auto v, auto chunk) {
    const auto kernel = args.pad ? forward_kernel<T, v(), chunk(), true>
                                 : forward_kernel<T, v(), chunk(), false>;
    kernel<<<tiles<T, v()>(args), kLanes, 0, stream>>>(args);
    return cudaGetLastError();
  });
}

template cudaError_t forward_cuda(const Forward<float>&, cudaStream_t);
template cudaError_t forward_cuda(const Forward<double>&, cudaStream_t);
template cudaError_t forward_cuda(const Forward<__half>&, cudaStream_t);
template cudaError_t forward_cuda(const Forward<__nv_bfloat16>&, cudaStream_t);

}  // namespace sru
