#include "recurrence_cuda.cuh"

namespace sru {

// A lane of the backward kernels, which start with the last group. Of two warps a tile, each has
// every other group.
template <typename T, int V, int Chunk, bool Padding, bool Small, int Warps>
class BackwardLane {
 public:
  using S = State<T>;
  static constexpr bool kBackward = true;
  static constexpr bool kAhead = !Small && Warps == 1 && Chunk > 2 &&
                                 sizeof(T) < 8;             // as registers allow
  static constexpr int kRow = kLanes * V * int(sizeof(T));  // bytes of a tile's row
  static constexpr int kStep = 5 * kRow;                    // u0, u1, u2, highway, grad_h
  static constexpr int kState = kLanes * V * int(sizeof(S));
  static constexpr int kSlot = kGroup * kStep + kState;  // a group's steps, the state before it
  static constexpr int kGroups = Small ? 2 : 4;
  static constexpr int kShared = kGroups * kSlot;
  // at once on a multiprocessor; padding takes a few registers
  static constexpr int kBlocks = !Small ? 1 : Padding ? 12 : 16;

  SRU_INLINE BackwardLane(const Backward<T>& a, int64_t index, int lane, char* ring, int warp = 0)
      : a_(a), channels_(a, index, lane), ring_(ring) {
    const int64_t b = channels_.b, channel = channels_.channel;
    for (int i = 0; i < kCopies; ++i) {
      copies_[i] = copy_at((lane + i * kLanes) * Chunk);
    }
    for (int group = 0; group < kGroups; ++group) {
      channels_.clear_highway(a, ring + group * kSlot, kStep, 3 * kRow, kGroup);
    }
    for (int i = 0; i < V; ++i) {
      grad_c_[i] = a.grad_c_last[a.state_at(b, channel) + i];
    }
    const Course& course = channels_.course;
    const int64_t groups = (a.length + kGroup - 1) / kGroup;
    const int64_t stride = course.sign * a.batch * a.width;
    const int64_t last = (groups * kGroup - 1) * stride;
    const bool inside = a.blocks == 4;
    u_stride_ = stride * a.blocks;
    grad_u_ = a.grad_u + a.u_at(course.t, b, channel) + last * a.blocks;
    if (inside) {
      grad_s_ = grad_u_ + 3 * a.width;
      s_stride_ = u_stride_;
    } else if (a.x) {
      grad_s_ = a.grad_x + a.row_at(course.t, b, channel) + last;
      s_stride_ = stride;
    }
    if (warp > 0) {
      skip_copies();
      skip_group();
    }
  }

  SRU_INLINE void fetch(int first, int slot) {
    copy_group<Chunk, kBackward, kAhead ? kGroup : 2>(copies_, first, ring_ + slot * kSlot, kStep);
    if constexpr (Warps == 2) {
      skip_copies();
    }
  }

  SRU_INLINE void read(int slot) {
    next_.rows = ring_ + slot * kSlot;
    if constexpr (kAhead) {
      for (int k = 0; k < kGroup; ++k) {
        for (int j = 0; j < 5; ++j) {
          next_.row[k][j] = read_row(next_, k, j);
        }
      }
    }
    widen(hold<S, V>(next_.rows + kGroup * kStep, channels_.row_lane), next_.c[0]);
  }

  // The gates and states of the group just read.
  SRU_INLINE void prepare(int group, bool start) {
    if constexpr (Padding) {
      next_.padded = channels_.template padding<kBackward, Warps>(a_, group, start);
    }
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      S u0[V], u1[V], u2[V];
      widen(row(next_, k, 0), u0);
      widen(row(next_, k, 1), u1);
      widen(row(next_, k, 2), u2);
      for (int i = 0; i < V; ++i) {
        const S prev = next_.c[k][i];
        const S f = forget_gate(channels_.gates[i], u0[i], prev);
        if constexpr (!Small) {
          next_.f[k][i] = f;
          next_.r[k][i] = reset_gate(channels_.gates[i], u1[i], prev);
        }
        const S c = next_state(f, u2[i], prev);
        next_.c[k + 1][i] = is_padding<Padding>(next_.padded, k) ? prev : c;
      }
    }
  }

  // Goes on to the group prepared.
  SRU_INLINE void take() { now_ = next_; }

  // The gradients of the group, or of its first `count` steps.
  template <bool All>
  SRU_INLINE void complete(int count) {
#pragma unroll
    for (int k = kGroup - 1; k >= 0; --k) {
      if (All || k < count) {
        step(k);
      }
      grad_u_ -= u_stride_;
      grad_s_ -= s_stride_;
    }
    if constexpr (Warps == 2) {
      skip_group();
    }
  }

  // The gradient of the state before the group just completed, from one warp to the other.
  SRU_INLINE void receive(const S* from) { grad_c_[0] = from[channels_.lane]; }
  SRU_INLINE void send(S* to) const { to[channels_.lane] = grad_c_[0]; }

  // The sums over time, from one warp to the other.
  SRU_INLINE void receive_sums(const S* from) {
    int i = channels_.lane;
    for (S* sum : {grad_v_f_, grad_v_r_, grad_b_f_, grad_b_r_, grad_mask_}) {
      sum[0] += from[i];
      i += kLanes;
    }
  }
  SRU_INLINE void send_sums(S* to) const {
    int i = channels_.lane;
    for (const S* sum : {grad_v_f_, grad_v_r_, grad_b_f_, grad_b_r_, grad_mask_}) {
      to[i] = sum[0];
      i += kLanes;
    }
  }

  SRU_INLINE void finish() const {
    S* gates = a_.grad_gates + channels_.b * 4 * a_.width + channels_.channel;
    channels_.put(gates, grad_v_f_);
    channels_.put(gates + a_.width, grad_v_r_);
    channels_.put(gates + 2 * a_.width, grad_b_f_);
    channels_.put(gates + 3 * a_.width, grad_b_r_);
    const int64_t state_at = a_.state_at(channels_.b, channels_.channel);
    channels_.put(a_.grad_c0 + state_at, grad_c_);
    if (a_.grad_mask_c) {
      channels_.put(a_.grad_mask_c + state_at, grad_mask_);
    }
  }

 private:
  // Leave a group to the other warp.
  SRU_INLINE void skip_copies() {
    for (Copy& copy : copies_) {
      copy.from += kGroup * copy.stride + copy.rest;
    }
  }
  SRU_INLINE void skip_group() {
    grad_u_ -= kGroup * u_stride_;
    grad_s_ -= kGroup * s_stride_;
  }

  static constexpr int kCopies = ((kStep + kState) / Chunk + kLanes - 1) / kLanes;

  struct Group {
    const char* rows;  // in the ring, for as long as the next group is not fetched
    Held<T, V> row[kAhead ? kGroup : 1][5];
    S f[kGroup][V], r[kGroup][V];  // not of the small kernel, which computes them again
    S c[kGroup + 1][V];            // before and after each step
    uint32_t padded;
  };

  SRU_INLINE Held<T, V> read_row(const Group& group, int k, int j) const {
    return hold<T, V>(group.rows + k * kStep + j * kRow, channels_.row_lane);
  }
  SRU_INLINE Held<T, V> row(const Group& group, int k, int j) const {
    if constexpr (kAhead) {
      return group.row[k][j];
    } else {
      return read_row(group, k, j);
    }
  }

  // The copy of the chunk `at` bytes into a step with the state before it.
  SRU_INLINE Copy copy_at(int at) const {
    const int in_state = at - kStep;
    const int64_t channel =
        channels_.tile + (in_state < 0 ? at % kRow / int(sizeof(T)) : in_state / int(sizeof(S)));
    if (in_state >= kState || channel >= channels_.end) {
      return {};
    }
    const int64_t b = channels_.b, states = a_.batch * a_.width * int64_t(sizeof(S));
    if (in_state >= 0) {
      const int inside = in_state % int(sizeof(S));  // a chunk of 2 bytes is half a state
      const char* from = reinterpret_cast<const char*>(a_.c + a_.state_at(b, channel)) + inside;
      const int rest = static_cast<int>(states % kGroup);  // of the way to the state before
      Copy copy = row_copy<kBackward>(
          a_, from + (a_.length - 1) / kGroup * rest, states / kGroup, kGroup * kStep + in_state);
      copy.others = 0;
      copy.rest = -rest;
      return copy;
    }
    if (at < 4 * kRow) {
      return input_copy<kBackward>(a_, channels_.course, b, channel, at / kRow, at);
    }
    const Course& course = channels_.course;
    const T* from = a_.grad_h + a_.row_at(course.t, b, channel);
    return row_copy<kBackward>(
        a_, from, course.sign * a_.batch * a_.width * int64_t(sizeof(T)), at);
  }

  SRU_INLINE void step(int k) {
    S u0[V], u1[V], u2[V], s[V], grad_h[V], grad_u0[V], grad_u1[V], grad_u2[V], grad_s[V];
    widen(row(now_, k, 0), u0);
    widen(row(now_, k, 1), u1);
    widen(row(now_, k, 2), u2);
    widen(row(now_, k, 3), s);
    widen(row(now_, k, 4), grad_h);
    for (int i = 0; i < V; ++i) {
      const S prev = now_.c[k][i];
      const S f = Small ? forget_gate(channels_.gates[i], u0[i], prev) : now_.f[k][i];
      const S r = Small ? reset_gate(channels_.gates[i], u1[i], prev) : now_.r[k][i];
      StepGrad<S> grad = backward_step(
          channels_.gates[i], channels_.mask[i], f, r, u2[i], channels_.scale * s[i], prev,
          now_.c[k + 1][i], grad_h[i], grad_c_[i]);
      if (is_padding<Padding>(now_.padded, k)) {
        grad = {0, 0, 0, 0, grad_c_[i], 0};
      }
      grad_c_[i] = grad.prev;
      grad_mask_[i] += grad.mask;
      grad_v_f_[i] += grad.u0 * prev;
      grad_v_r_[i] += grad.u1 * prev;
      grad_b_f_[i] += grad.u0;
      grad_b_r_[i] += grad.u1;
      grad_u0[i] = grad.u0;
      grad_u1[i] = grad.u1;
      grad_u2[i] = grad.u2;
      grad_s[i] = channels_.scale * grad.s;
    }
    channels_.put(grad_u_, grad_u0);
    channels_.put(grad_u_ + a_.width, grad_u1);
    channels_.put(grad_u_ + 2 * a_.width, grad_u2);
    if (grad_s_) {
      channels_.put(grad_s_, grad_s);
    }
  }

  const Backward<T>& a_;
  Channels<T, V> channels_;
  char* ring_;
  Copy copies_[kCopies];
  Group now_, next_;
  S grad_c_[V];
  S grad_mask_[V] = {}, grad_v_f_[V] = {}, grad_v_r_[V] = {}, grad_b_f_[V] = {}, grad_b_r_[V] = {};
  int64_t u_stride_, s_stride_ = 0;
  T *grad_u_, *grad_s_ = nullptr;  // the latter: of the highway input, if there is one
};

template <typename T, int V, int Chunk, bool Padding, bool Small>
using OneWarp = BackwardLane<T, V, Chunk, Padding, Small, 1>;

// The program of two warps a tile: while one completes a group, which is a chain of gradients, the
// other computes the states of the next, a chain of states. They meet after each.
template <typename T, bool Padding>
struct BackwardPair {
  using S = State<T>;
  using Lane = BackwardLane<T, 1, 16, Padding, false, 2>;
  static constexpr int kThreads = 2 * kLanes, kBlocks = 1, kSums = 5 * kLanes;
  static constexpr int kShared = 2 * Lane::kShared + (kSums + kLanes) * int(sizeof(S));

  static SRU_INLINE void run(const Backward<T>& args, unsigned block, int index, char* shared) {
    const int own = index / kLanes, length = static_cast<int>(args.length);
    const int groups = (length + kGroup - 1) / kGroup, rest = length % kGroup;
    S* const sums = reinterpret_cast<S*>(shared + 2 * Lane::kShared);
    S* const grad_c = sums + kSums;
    Lane lane(args, block, index % kLanes, shared + own * Lane::kShared, own);
    const auto fetch = [&](int i) {
      lane.fetch((groups - 1 - i) * kGroup, i / 2 % Lane::kGroups);
      warp::commit_copies();
    };
    const auto prepare = [&](int i) {
      await_group<Lane::kGroups>();
      lane.read(i / 2 % Lane::kGroups);
      lane.prepare(groups - 1 - i, i < 2);
      lane.take();
    };
    const auto complete = [&](int i, int steps, auto all) {
      fetch(i + 2 * (Lane::kGroups - 1));
      lane.receive(grad_c);
      lane.template complete<decltype(all)::value>(steps);
      lane.send(grad_c);
      warp::sync_block();
      prepare(i + 2);
      warp::sync_block();
    };
    for (int i = 0; i < Lane::kGroups - 1; ++i) {
      fetch(own + 2 * i);
    }
    prepare(own);
    int i = own;
    if (own == 1) {
      warp::sync_block();
    } else {
      lane.send(grad_c);  // to itself
      if (rest > 0) {
        complete(0, rest, std::false_type());
        i = 2;
      }
    }
    for (; i < groups; i += 2) {
      complete(i, kGroup, std::true_type());
    }
    if ((groups + own) % 2 == 0) {
      warp::sync_block();  // as often as the other
    }
    if (own == 1) {
      lane.send_sums(sums);
    }
    warp::sync_block();
    if (own == 0) {
      lane.receive(grad_c);
      lane.receive_sums(sums);
      lane.finish();
    }
  }
};

template <typename T>
cudaError_t backward_cuda(const Backward<T>& args, cudaStream_t stream) {
  const int chunk = largest_chunk(
      args, args.x, args.c, args.grad_h, args.grad_u, args.grad_x, args.grad_gates, args.grad_c0,
      args.grad_mask_c);
  return launch<OneWarp, BackwardPair, T>(args, chunk, stream);
}

template cudaError_t backward_cuda(const Backward<float>&, cudaStream_t);
template cudaError_t backward_cuda(const Backward<double>&, cudaStream_t);
template cudaError_t backward_cuda(const Backward<__half>&, cudaStream_t);
template cudaError_t backward_cuda(const Backward<__nv_bfloat16>&, cudaStream_t);

}  // namespace sru
