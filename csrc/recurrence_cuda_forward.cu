#include "forward_lane.cuh"
#include "forward_pair.cuh"

namespace sru {

// A lane of the forward kernel of one warp a tile.
template <typename T, int V, int Chunk, bool Padding, bool Small>
class ForwardLane {
 public:
  using S = State<T>;
  // what keeps memory busy
  using Ring = ForwardRing<T, V, Chunk, Small ? 3 : V * sizeof(T) < 4 ? 8 : 4>;
  static constexpr bool kBackward = false, kAhead = true;
  static constexpr int kGroups = Ring::kGroups, kShared = Ring::kBytes, kBlocks = 1;

  SRU_INLINE ForwardLane(const Forward<T>& a, int64_t index, int lane, char* shared)
      : a_(a),
        channels_(a, index, lane),
        shared_(shared),
        ring_(a, channels_, shared),
        outputs_(a, channels_) {
    for (int i = 0; i < V; ++i) {
      next_.c[0][i] = channels_.initial_state(a, i);
    }
  }

  SRU_INLINE void fetch(int first, int slot) { ring_.fetch(first, slot); }

  SRU_INLINE void read(int slot) {
    for (int k = 0; k < kGroup; ++k) {
      for (int j = 0; j < 4; ++j) {
        next_.row[k][j] = Ring::row(shared_, slot, k, j, channels_.row_lane);
      }
    }
  }

  // The states of the group just read.
  SRU_INLINE void prepare(int group, bool start) {
    if constexpr (Padding) {
      next_.padded = channels_.template padding<kBackward>(a_, group, start);
    }
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      S u0[V], u2[V];
      widen(next_.row[k][0], u0);
      widen(next_.row[k][2], u2);
      for (int i = 0; i < V; ++i) {
        const S prev = next_.c[k][i];
        const S c = next_state(forget_gate(channels_.gates[i], u0[i], prev), u2[i], prev);
        next_.c[k + 1][i] = is_padding<Padding>(next_.padded, k) ? prev : c;
      }
    }
  }

  // Goes on to the group prepared.
  SRU_INLINE void take() {
    now_ = next_;
    for (int i = 0; i < V; ++i) {
      next_.c[0][i] = now_.c[kGroup][i];
    }
  }

  // The output of the group, or of its first `count` steps.
  template <bool All>
  SRU_INLINE void complete(int count) {
    outputs_.keep(channels_, now_.c[0]);
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      if (All || k < count) {
        outputs_.put(
            channels_, now_.row[k][1], now_.row[k][3], now_.c[k], now_.c[k + 1],
            is_padding<Padding>(now_.padded, k));
      }
    }
  }

  SRU_INLINE void finish() const { outputs_.finish(a_, channels_); }

 private:
  struct Group {
    Held<T, V> row[kGroup][4];
    S c[kGroup + 1][V];  // before and after each step
    uint32_t padded;
  };

  const Forward<T>& a_;
  Channels<T, V> channels_;
  const char* shared_;
  Ring ring_;
  ForwardOutputs<T, V> outputs_;
  Group now_, next_;
};

template <typename T>
cudaError_t forward_cuda(const Forward<T>& args, cudaStream_t stream) {
  const int chunk = largest_chunk(args, args.x, args.h, args.c_last, args.c);
  return launch<ForwardLane, ForwardPair, T>(args, chunk, stream);
}

template cudaError_t forward_cuda(const Forward<float>&, cudaStream_t);
template cudaError_t forward_cuda(const Forward<double>&, cudaStream_t);
template cudaError_t forward_cuda(const Forward<__half>&, cudaStream_t);
template cudaError_t forward_cuda(const Forward<__nv_bfloat16>&, cudaStream_t);

}  // namespace sru
