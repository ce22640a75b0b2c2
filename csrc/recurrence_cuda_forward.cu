#include "recurrence_cuda.cuh"

namespace sru {

// A lane of the forward kernel.
template <typename T, int V, int Chunk, bool Padding>
class ForwardLane {
 public:
  using S = State<T>;
  static constexpr bool kBackward = false, kAhead = true;
  static constexpr int kRow = kLanes * V * int(sizeof(T));  // bytes of a tile's row
  static constexpr int kStep = 4 * kRow;                    // u0, u1, u2, highway
  static constexpr int kSlot = kGroup * kStep;
  static constexpr int kGroups = kRow < 128 ? 8 : 4;  // what keeps memory busy
  static constexpr int kRing = kGroups * kSlot;

  SRU_INLINE ForwardLane(const Forward<T>& a, int64_t index, int lane, char* ring)
      : a_(a), channels_(a, index, lane), ring_(ring) {
    const int64_t b = channels_.b, channel = channels_.channel;
    for (int i = 0; i < kCopies; ++i) {
      const int at = (lane + i * kLanes) * Chunk;
      const int64_t first = channels_.tile + at % kRow / int(sizeof(T));
      if (at < kStep && first < a.width) {
        copies_[i] = input_copy<kBackward>(a, b, first, at / kRow, at);
      }
    }
    channels_.clear_highway(a, ring, kStep, 3 * kRow, kGroups * kGroup);
    for (int i = 0; i < V; ++i) {
      last_[i] = next_.c[0][i] = channels_.initial_state(a, i);
    }
    const Course course(a, channel);
    h_stride_ = course.sign * a.batch * a.width;
    c_stride_ = a.batch * a.width;
    h_ = a.h + a.row_at(course.t, b, channel);
    c_ = a.c + a.state_at(b, channel);
    keeps_c_ = a.c != nullptr;
  }

  SRU_INLINE void fetch(int first, int slot) {
    copy_group<Chunk, kBackward, kGroup>(copies_, first, ring_ + slot * kSlot, kStep);
  }

  SRU_INLINE void read(int slot) {
    for (int k = 0; k < kGroup; ++k) {
      const char* step = ring_ + slot * kSlot + k * kStep;
      for (int j = 0; j < 4; ++j) {
        next_.row[k][j] = hold<T, V>(step + j * kRow, channels_.row_lane);
      }
    }
  }

  SRU_INLINE void look_for_padding(int first, bool start) {
    if constexpr (Padding) {
      channels_.look_for_padding(a_, first, first + 32, start);
    }
  }

  // The states of the group just read, whose padding starts at bit `bit`.
  SRU_INLINE void prepare(int bit) {
    next_.padded = channels_.padded >> bit;
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
    if (keeps_c_) {
      channels_.put(c_, now_.c[0]);
    }
    c_ += c_stride_;
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      if (All || k < count) {
        step(k);
      }
    }
  }

  SRU_INLINE void finish() const {
    channels_.put(a_.c_last + a_.state_at(channels_.b, channels_.channel), last_);
  }

 private:
  static constexpr int kCopies = (kStep / Chunk + kLanes - 1) / kLanes;

  struct Group {
    Held<T, V> row[kGroup][4];
    S c[kGroup + 1][V];  // before and after each step
    uint32_t padded;
  };

  SRU_INLINE void step(int k) {
    S u1[V], s[V], h[V];
    widen(now_.row[k][1], u1);
    widen(now_.row[k][3], s);
    for (int i = 0; i < V; ++i) {
      const S r = reset_gate(channels_.gates[i], u1[i], now_.c[k][i]);
      const S out = output(r, channels_.mask[i], channels_.scale * s[i], now_.c[k + 1][i]);
      h[i] = is_padding<Padding>(now_.padded, k) ? S(0) : out;
      last_[i] = now_.c[k + 1][i];
    }
    channels_.put(h_, h);
    h_ += h_stride_;
  }

  const Forward<T>& a_;
  Channels<T, V> channels_;
  char* ring_;
  Copy copies_[kCopies];
  Group now_, next_;
  S last_[V];
  int64_t h_stride_, c_stride_;
  T* h_;
  S* c_;
  bool keeps_c_;
};

template <typename T>
cudaError_t forward_cuda(const Forward<T>& args, cudaStream_t stream) {
  const int chunk = largest_chunk(args, args.x, args.h, args.c_last, args.c);
  return launch<ForwardLane, T>(args, chunk, stream);
}

template cudaError_t forward_cuda(const Forward<float>&, cudaStream_t);
template cudaError_t forward_cuda(const Forward<double>&, cudaStream_t);
template cudaError_t forward_cuda(const Forward<__half>&, cudaStream_t);
template cudaError_t forward_cuda(const Forward<__nv_bfloat16>&, cudaStream_t);

}  // namespace sru
