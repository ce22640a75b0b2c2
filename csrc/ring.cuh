// The ring in shared memory that a warp copies the rows of the next steps into, a group of steps at
// a time.
#pragma once

#include "recurrence.h"
#include "warp.cuh"

namespace sru {

constexpr int kLanes = 32;
constexpr int kGroup = kStatesEvery;

// Waits until the oldest of the ring's groups has arrived, for all lanes to see.
template <int Groups>
SRU_INLINE void await_group() {
  warp::wait_for_copies<Groups - 2>();
  warp::sync();
}

// A lane's share in the copying of every step, to `to` in the group.
struct Copy {
  const char* from = nullptr;
  int64_t stride = 0;              // in bytes, from one step to the next
  unsigned first = 0, others = 0;  // copied are steps below: the first of groups, and the others
  int to = 0;
  int rest = 0;  // bytes from one group to the next, besides the strides of its steps

  // Whether the k-th step of the group that starts at `start` is copied.
  SRU_INLINE bool has(int start, int k) const {
    return static_cast<unsigned>(start + k) < (k == 0 ? first : others);
  }
};

// Copies the group that starts at step `first`, whose steps take `step_bytes` each, AtOnce steps at
// once: the fewer, the fewer registers it takes.
template <int Chunk, bool Backward, int AtOnce, int N>
SRU_INLINE void copy_group(Copy (&copies)[N], int first, char* group, int step_bytes) {
  constexpr int kPart = Chunk == 2 && AtOnce > 4 ? 4 : AtOnce;
#pragma unroll 1
  for (int part = 0; part < kGroup; part += kPart) {
    uint16_t loaded[kPart][N];  // chunks of 2 bytes, which nothing copies asynchronously
    const auto step = [&](int i) { return Backward ? kGroup - 1 - part - i : part + i; };
    for (int i = 0; i < kPart; ++i) {
      const int k = step(i);
      for (int j = 0; j < N; ++j) {
        Copy& copy = copies[j];
        if (copy.has(first, k)) {
          if constexpr (Chunk == 2) {
            loaded[i][j] = *reinterpret_cast<const uint16_t*>(copy.from);
          } else {
            warp::copy_async<Chunk>(group + k * step_bytes + copy.to, copy.from);
          }
        }
        copy.from += Backward && k == 0 ? copy.stride + copy.rest : copy.stride;
      }
    }
    if constexpr (Chunk == 2) {
      for (int i = 0; i < kPart; ++i) {
        for (int j = 0; j < N; ++j) {
          if (copies[j].has(first, step(i))) {
            *reinterpret_cast<uint16_t*>(group + step(i) * step_bytes + copies[j].to) =
                loaded[i][j];
          }
        }
      }
    }
  }
}

// Where the time of a channel starts and where it goes.
struct Course {
  int64_t t = 0, sign = 1;

  Course() = default;
  template <typename T>
  SRU_INLINE Course(const Inputs<T>& in, int64_t channel)
      : t(in.time(channel, 0)), sign(in.reverse(channel) ? -1 : 1) {}
};

// The copy of a row that lies at `row` in step 0 and moves by `stride` bytes a step.
template <bool Backward, typename T>
SRU_INLINE Copy row_copy(const Inputs<T>& in, const void* row, int64_t stride, int to) {
  const int64_t start = Backward ? (in.length + kGroup - 1) / kGroup * kGroup - 1 : 0;
  const unsigned steps = static_cast<unsigned>(in.length);
  return {
      static_cast<const char*>(row) + start * stride, Backward ? -stride : stride, steps, steps,
      to};
}

// The copy of a chunk of u or the highway input, from `channel` on.
template <bool Backward, typename T>
SRU_INLINE Copy
input_copy(const Inputs<T>& in, const Course& course, int64_t b, int64_t channel, int row, int to) {
  const int64_t stride = course.sign * in.batch * in.width * int64_t(sizeof(T));
  if (row < in.blocks) {
    const T* from = in.u + in.u_at(course.t, b, channel) + row * in.width;
    return row_copy<Backward>(in, from, in.blocks * stride, to);
  }
  if (!in.x) {
    return {};
  }
  return row_copy<Backward>(in, in.x + in.row_at(course.t, b, channel), stride, to);
}

}  // namespace sru
