// The forward pass of a tile by two warps, for few channels, where the chain of states binds: one
// does nothing else. It leaves the states of a group in shared memory, and the other, a group
// behind, makes outputs of them; that one also copies. They meet once a group.
#pragma once

#include "forward_lane.cuh"

namespace sru {

// A block is alone with two or three on a multiprocessor: as deep a ring as static memory allows.
template <typename T>
using PairRing = ForwardRing<T, 1, 16, 32 / sizeof(T)>;

// States before and after the steps of a group, of two groups in turn.
template <typename S>
using PairStates = S[2][kGroup + 1][kLanes];

// A lane of the warp that computes states.
template <typename T, bool Padding>
class ChainLane {
 public:
  using S = State<T>;
  using Ring = PairRing<T>;

  SRU_INLINE ChainLane(
      const Forward<T>& a, int64_t index, int lane, const char* ring, PairStates<S>& states)
      : a_(a), channels_(a, index, lane), ring_(ring), states_(states) {
    c_ = channels_.initial_state(a, 0);
  }

  SRU_INLINE void walk(int groups) {
    warp::sync_block();
    read(0, 0, kEarly);
    for (int i = 0; i < groups; ++i) {
      group(i);
      warp::sync_block();
    }
  }

 private:
  static constexpr int kEarly = 1;  // steps whose rows are read while the group before is computed

  SRU_INLINE void read(int group, int from, int to) {
    const int slot = group % Ring::kGroups;
    for (int k = from; k < to; ++k) {
      u0_[k] = Ring::row(ring_, slot, k, 0, channels_.row_lane);
      u2_[k] = Ring::row(ring_, slot, k, 2, channels_.row_lane);
    }
  }

  SRU_INLINE void group(int i) {
    read(i, kEarly, kGroup);
    S u0[kGroup][1], u2[kGroup][1];
    for (int k = 0; k < kGroup; ++k) {
      widen(u0_[k], u0[k]);
      widen(u2_[k], u2[k]);
    }
    read(i + 1, 0, kEarly);
    uint32_t padded = 0;
    if constexpr (Padding) {
      padded = channels_.template padding<false>(a_, i, i == 0);
    }
    S(&states)[kGroup + 1][kLanes] = states_[i % 2];
    states[0][channels_.lane] = c_;
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      const S c = next_state(forget_gate(channels_.gates[0], u0[k][0], c_), u2[k][0], c_);
      c_ = is_padding<Padding>(padded, k) ? c_ : c;
      states[k + 1][channels_.lane] = c_;
    }
  }

  const Forward<T>& a_;
  Channels<T, 1> channels_;
  const char* ring_;
  PairStates<S>& states_;
  Held<T, 1> u0_[kGroup], u2_[kGroup];
  S c_;
};

// A lane of the warp that copies and makes outputs.
template <typename T, bool Padding>
class OutputLane {
 public:
  using S = State<T>;
  using Ring = PairRing<T>;

  SRU_INLINE OutputLane(
      const Forward<T>& a, int64_t index, int lane, char* ring, const PairStates<S>& states)
      : a_(a),
        channels_(a, index, lane),
        shared_(ring),
        states_(states),
        ring_(a, channels_, ring),
        outputs_(a, channels_) {}

  SRU_INLINE void walk(int groups) {
    for (int i = 0; i < kAhead; ++i) {
      fetch(i);
    }
    meet();
    fetch(kAhead);
    meet();
    for (int i = 1; i < groups; ++i) {
      fetch(i + kAhead);
      group<true>(i - 1, kGroup);
      meet();
    }
    group<false>(groups - 1, static_cast<int>(a_.length) - (groups - 1) * kGroup);
    outputs_.finish(a_, channels_);
  }

 private:
  // Groups that are fetched before the states of the first are computed. The slots besides are that
  // of the group whose outputs are made, and that of the group before.
  static constexpr int kAhead = Ring::kGroups - 2;

  SRU_INLINE void fetch(int i) {
    ring_.fetch(i * kGroup, i % Ring::kGroups);
    warp::commit_copies();
  }

  // Once the next two groups have arrived: the other warp computes the states of the first and
  // reads the second.
  SRU_INLINE void meet() {
    warp::wait_for_copies<kAhead - 2>();
    warp::sync_block();
  }

  // The output of a group, or of its first `count` steps.
  template <bool All>
  SRU_INLINE void group(int i, int count) {
    uint32_t padded = 0;
    if constexpr (Padding) {
      padded = channels_.template padding<false>(a_, i, i == 0);
    }
    const int slot = i % Ring::kGroups, lane = channels_.row_lane;
    const S(&states)[kGroup + 1][kLanes] = states_[i % 2];
    S before[1] = {states[0][channels_.lane]};
    outputs_.keep(channels_, before);
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      if (All || k < count) {
        const S after[1] = {states[k + 1][channels_.lane]};
        outputs_.put(
            channels_, Ring::row(shared_, slot, k, 1, lane), Ring::row(shared_, slot, k, 3, lane),
            before, after, is_padding<Padding>(padded, k));
        before[0] = after[0];
      }
    }
  }

  const Forward<T>& a_;
  Channels<T, 1> channels_;
  const char* shared_;
  const PairStates<S>& states_;
  Ring ring_;
  ForwardOutputs<T, 1> outputs_;
};

// The program of both.
template <typename T, bool Padding>
struct ForwardPair {
  using States = PairStates<State<T>>;
  static constexpr int kThreads = 2 * kLanes, kBlocks = 1;
  static constexpr int kShared = PairRing<T>::kBytes + int(sizeof(States));

  static SRU_INLINE void run(const Forward<T>& args, unsigned block, int index, char* shared) {
    auto& states = *reinterpret_cast<States*>(shared + PairRing<T>::kBytes);
    const int lane = index % kLanes, groups = static_cast<int>((args.length + kGroup - 1) / kGroup);
    if (index < kLanes) {
      ChainLane<T, Padding>(args, block, lane, shared, states).walk(groups);
    } else {
      OutputLane<T, Padding>(args, block, lane, shared, states).walk(groups);
    }
  }
};

}  // namespace sru
