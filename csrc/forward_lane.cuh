// What a lane of the forward kernels does besides the chain of states: it copies its share of the
// rows ahead, and makes outputs of states.
#pragma once

#include "recurrence_cuda.cuh"

namespace sru {

// A ring of groups of steps: u0, u1, u2 and the highway input of V channels a lane.
template <typename T, int V, int Chunk, int Groups>
class ForwardRing {
 public:
  static constexpr int kGroups = Groups;
  static constexpr int kRow = kLanes * V * int(sizeof(T));  // bytes of a tile's row
  static constexpr int kStep = 4 * kRow;
  static constexpr int kSlot = kGroup * kStep;
  static constexpr int kBytes = kGroups * kSlot;

  // For a lane that copies.
  SRU_INLINE ForwardRing(const Forward<T>& a, const Channels<T, V>& channels, char* ring)
      : ring_(ring) {
    for (int i = 0; i < kCopies; ++i) {
      const int at = (channels.lane + i * kLanes) * Chunk;
      const int64_t first = channels.tile + at % kRow / int(sizeof(T));
      if (at < kStep && first < channels.end) {
        copies_[i] = input_copy<false>(a, channels.course, channels.b, first, at / kRow, at);
      }
    }
    channels.clear_highway(a, ring, kStep, 3 * kRow, kGroups * kGroup);
  }

  SRU_INLINE void fetch(int first, int slot) {
    copy_group<Chunk, false, kGroup>(copies_, first, ring_ + slot * kSlot, kStep);
  }

  // The j-th row of the k-th step of a slot.
  static SRU_INLINE Held<T, V> row(const char* ring, int slot, int k, int j, int lane) {
    return hold<T, V>(ring + slot * kSlot + k * kStep + j * kRow, lane);
  }

 private:
  static constexpr int kCopies = (kStep / Chunk + kLanes - 1) / kLanes;

  char* ring_;
  Copy copies_[kCopies];
};

// Where a lane's outputs go, and where the states are kept.
template <typename T, int V>
class ForwardOutputs {
 public:
  using S = State<T>;

  SRU_INLINE ForwardOutputs(const Forward<T>& a, const Channels<T, V>& channels)
      : keeps_c_(a.c != nullptr) {
    const int64_t b = channels.b, channel = channels.channel;
    const Course& course = channels.course;
    h_stride_ = course.sign * a.batch * a.width;
    c_stride_ = a.batch * a.width;
    h_ = a.h + a.row_at(course.t, b, channel);
    c_ = a.c + a.state_at(b, channel);
  }

  // Keeps the state before a group.
  SRU_INLINE void keep(const Channels<T, V>& channels, const S (&c)[V]) {
    if (keeps_c_) {
      channels.put(c_, c);
    }
    c_ += c_stride_;
  }

  // The output of a step between two states.
  SRU_INLINE void put(
      const Channels<T, V>& channels, Held<T, V> row_u1, Held<T, V> row_s, const S (&prev)[V],
      const S (&c)[V], bool padded) {
    S u1[V], s[V], h[V];
    widen(row_u1, u1);
    widen(row_s, s);
    for (int i = 0; i < V; ++i) {
      const S r = reset_gate(channels.gates[i], u1[i], prev[i]);
      const S out = output(r, channels.mask[i], channels.scale * s[i], c[i]);
      h[i] = padded ? S(0) : out;
      last_[i] = c[i];
    }
    channels.put(h_, h);
    h_ += h_stride_;
  }

  // Keeps the state after the last step.
  SRU_INLINE void finish(const Forward<T>& a, const Channels<T, V>& channels) const {
    channels.put(a.c_last + a.state_at(channels.b, channels.channel), last_);
  }

 private:
  S last_[V];
  int64_t h_stride_, c_stride_;
  T* h_;
  S* c_;
  bool keeps_c_;
};

}  // namespace sru
