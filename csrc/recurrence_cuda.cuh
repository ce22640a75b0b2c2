// What the forward and the backward CUDA kernel share. A block is one warp and owns a tile: 32 V
// adjacent channels of one batch element, V per lane. It walks through time alone, kGroup steps at
// once. A ring of kGroups groups in shared memory is filled ahead of it by asynchronous copies: the
// rows of a step (u0, u1, u2, highway, ...) are cut into chunks of 16 bytes and dealt out to the
// lanes, so that one instruction copies a whole step. A lane computes the states of a group, one
// long chain, while it completes the group before: the compiler fills the gaps of one with the
// other.
//
// The forward pass keeps the state before each group; from it the backward pass recomputes the
// states within, whose gates it needs anyway.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "recurrence_cuda.h"

namespace sru {

constexpr int kLanes = 32;
constexpr int kGroup = kStatesEvery;
constexpr int kGroups = 8;

template <int N>
using Number = std::integral_constant<int, N>;

// V values in registers, 16-bit ones in a word that the compiler does not take apart.
template <typename T, int V>
struct alignas(V * sizeof(T)) Held {
  T at[V];
};
template <int V>
struct Held<__half, V> {
  uint32_t word;
};
template <int V>
struct Held<__nv_bfloat16, V> {
  uint32_t word;
};

// From shared memory. The compiler is not to know that half of the word is empty: it would pack two
// into one.
SRU_INLINE uint32_t load_16_bits(const uint16_t* from) {
#ifdef __CUDA_ARCH__
  uint32_t word;
  asm volatile("ld.shared.u16 %0, [%1];"
               : "=r"(word)
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(from))));
  return word;
#else
  return *from;
#endif
}

// A lane's V values of the row that starts at `row`.
template <typename T, int V>
SRU_INLINE Held<T, V> hold(const char* row, int lane) {
  if constexpr (sizeof(T) > 2) {
    return reinterpret_cast<const Held<T, V>*>(row)[lane];
  } else if constexpr (V == 2) {
    return {reinterpret_cast<const uint32_t*>(row)[lane]};
  } else {
    return {load_16_bits(reinterpret_cast<const uint16_t*>(row) + lane)};
  }
}

template <typename T, int V>
SRU_INLINE void widen(const Held<T, V>& in, T (&out)[V]) {
  for (int i = 0; i < V; ++i) {
    out[i] = in.at[i];
  }
}
template <int V>
SRU_INLINE void widen(const Held<__half, V>& in, float (&out)[V]) {
  const float2 both = __half22float2(bit_cast<__half2>(in.word));
  out[0] = both.x;
  if constexpr (V == 2) {
    out[1] = both.y;
  }
}
template <int V>
SRU_INLINE void widen(const Held<__nv_bfloat16, V>& in, float (&out)[V]) {
  out[0] = bit_cast<float>(in.word << 16);
  if constexpr (V == 2) {
    out[1] = bit_cast<float>(in.word & 0xffff0000u);
  }
}

// Not casts: PyTorch compiles with -D__CUDA_NO_HALF_CONVERSIONS__ and the like.
SRU_INLINE void narrow(float value, __half& out) {
  out = __float2half_rn(value);
}
SRU_INLINE void narrow(float value, __nv_bfloat16& out) {
  out = __float2bfloat16_rn(value);
}
template <typename S>
SRU_INLINE void narrow(S value, S& out) {
  out = value;
}

SRU_INLINE __half2 pair(const float (&values)[2], Held<__half, 2>) {
  return __floats2half2_rn(values[0], values[1]);
}
SRU_INLINE __nv_bfloat162 pair(const float (&values)[2], Held<__nv_bfloat16, 2>) {
  return __floats2bfloat162_rn(values[0], values[1]);
}

template <int V, typename T>
SRU_INLINE void store(T* to, const State<T> (&values)[V]) {
  if constexpr (V == 1) {
    narrow(values[0], to[0]);
  } else if constexpr (sizeof(T) > 2) {
    *reinterpret_cast<Held<T, V>*>(to) = {{values[0], values[1]}};
  } else {
    *reinterpret_cast<uint32_t*>(to) = bit_cast<uint32_t>(pair(values, Held<T, 2>()));
  }
}

// Copies a chunk of 4, 8 or 16 bytes from global to shared memory; asynchronous from sm_80 on.
template <int Bytes>
SRU_INLINE void copy_chunk(char* shared, const char* global) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
  } else {
    asm volatile(
        "cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(Bytes)
        : "memory");
  }
#else
  struct alignas(Bytes) Chunk {
    char bytes[Bytes];
  };
  *reinterpret_cast<Chunk*>(shared) = *reinterpret_cast<const Chunk*>(global);
#endif
}

// Ends a group of copies: all since the last one.
SRU_INLINE void end_group() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until all but the latest kGroups - 2 groups have arrived, for all lanes to see.
SRU_INLINE void await_group() {
#if defined(__CUDA_ARCH__)
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups - 2) : "memory");
#endif
  __syncwarp();
#endif
}

// A lane's share in the copying of every step, to `to` in the group.
struct Copy {
  const char* from = nullptr;
  int64_t stride = 0;              // in bytes, from one step to the next
  unsigned first = 0, others = 0;  // copied are steps below: the first of groups, and the others
  int to = 0;

  // Whether the k-th step of the group that starts at `start` is copied.
  SRU_INLINE bool has(int start, int k) const {
    return static_cast<unsigned>(start + k) < (k == 0 ? first : others);
  }
};

// Copies the group that starts at step `first`, whose steps take `step_bytes` each.
template <int Chunk, bool Backward, int N>
SRU_INLINE void copy_group(Copy (&copies)[N], int first, char* group, int step_bytes) {
  uint16_t loaded[kGroup][N];  // chunks of 2 bytes, which nothing copies asynchronously
  for (int i = 0; i < kGroup; ++i) {
    const int k = Backward ? kGroup - 1 - i : i;
    for (int j = 0; j < N; ++j) {
      Copy& copy = copies[j];
      if (copy.has(first, k)) {
        if constexpr (Chunk == 2) {
          loaded[k][j] = *reinterpret_cast<const uint16_t*>(copy.from);
        } else {
          copy_chunk<Chunk>(group + k * step_bytes + copy.to, copy.from);
        }
      }
      copy.from += copy.stride;
    }
  }
  if constexpr (Chunk == 2) {
    for (int k = 0; k < kGroup; ++k) {
      for (int j = 0; j < N; ++j) {
        if (copies[j].has(first, k)) {
          *reinterpret_cast<uint16_t*>(group + k * step_bytes + copies[j].to) = loaded[k][j];
        }
      }
    }
  }
}

// Where the time of a channel starts and where it goes.
struct Course {
  int64_t t, sign;

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
SRU_INLINE Copy input_copy(const Inputs<T>& in, int64_t b, int64_t channel, int row, int to) {
  const Course course(in, channel);
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

// Tiles of a batch element, and of all.
template <typename T, int V>
SRU_INLINE int64_t row_tiles(const Inputs<T>& in) {
  return (in.width + kLanes * V - 1) / (kLanes * V);
}
template <typename T, int V>
unsigned tiles(const Inputs<T>& in) {
  return static_cast<unsigned>(in.batch * row_tiles<T, V>(in));
}

// The V channels of a lane, and their parameters. A lane past the last channel does the same as the
// lane that has it.
template <typename T, int V>
struct Channels {
  using S = State<T>;
  int lane, row_lane;        // of the warp; whose channels in the rows of the ring
  int64_t b, tile, channel;  // tile: its first channel
  Gates<S> gates[V];
  S mask[V], scale;
  uint32_t padded = 0;  // which of 32 steps are padding, a bit each
  bool ahead[2] = {};   // whether this lane's of the next 32 is: forwards, and reversed

  SRU_INLINE Channels(const Inputs<T>& in, int64_t index, int lane) : lane(lane) {
    b = index / row_tiles<T, V>(in);
    tile = index % row_tiles<T, V>(in) * kLanes * V;
    channel = tile + lane * V < in.width ? tile + lane * V : in.width - V;
    row_lane = static_cast<int>(channel - tile) / V;
    scale = in.scale;
    for (int i = 0; i < V; ++i) {
      const int64_t d = channel + i;
      gates[i] = {
          in.weight_c ? in.weight_c[d] : 0, in.weight_c ? in.weight_c[in.width + d] : 0, in.bias[d],
          in.bias[in.width + d]};
      mask[i] = in.mask_c ? in.mask_c[in.state_at(b, d)] : 1;
    }
  }

  SRU_INLINE S initial_state(const Inputs<T>& in, int i) const {
    return in.c0 ? in.c0[in.state_at(b, channel + i)] : 0;
  }

  // Without a highway its rows, `at` bytes into every step, are never copied: they are zero.
  SRU_INLINE void clear_highway(
      const Inputs<T>& in, char* ring, int step, int at, int steps) const {
    if (in.blocks == 3 && !in.x) {
      const S zero[V] = {};
      for (int k = 0; k < steps; ++k) {
        store<V>(reinterpret_cast<T*>(ring + k * step + at) + row_lane * V, zero);
      }
    }
  }

  // Sets `padded` of the 32 steps from `first` on; those from `next` on come after them. Both
  // directions may meet in a tile, and the lanes ask together for either.
  SRU_INLINE void look_for_padding(const Inputs<T>& in, int64_t first, int64_t next, bool start) {
#ifdef __CUDA_ARCH__
    if (start) {
      ask_for_padding(in, first);
    }
    padded = __ballot_sync(0xffffffffu, ahead[0]);
    if (in.bidirectional) {
      const uint32_t reversed = __ballot_sync(0xffffffffu, ahead[1]);
      padded = in.reverse(channel) ? reversed : padded;
    }
    ask_for_padding(in, next);
#else
    padded = 0;
    for (int i = 0; i < 32; ++i) {
      padded |= uint32_t(is_padded(in, Course(in, channel), first + i)) << i;
    }
#endif
  }

  SRU_INLINE void ask_for_padding(const Inputs<T>& in, int64_t first) {
    ahead[0] = is_padded(in, Course(in, 0), first + lane);
    if (in.bidirectional) {
      ahead[1] = is_padded(in, Course(in, in.width - 1), first + lane);
    }
  }

  SRU_INLINE bool is_padded(const Inputs<T>& in, const Course& course, int64_t step) const {
    return 0 <= step && step < in.length &&
           in.pad[(course.t + course.sign * step) * in.batch + b];
  }
};

// Walks N lanes (one on the GPU; all of a warp on the host, for tests) through time together.
template <int N, typename Lane>
SRU_INLINE void walk(Lane* lanes, int length) {
  const int groups = (length + kGroup - 1) / kGroup;
  const auto group_at = [&](int i) { return Lane::kBackward ? groups - 1 - i : i; };
  const auto fetch = [&](int i) {
    for (int lane = 0; lane < N; ++lane) {
      lanes[lane].fetch(group_at(i) * kGroup, i % kGroups);
    }
    end_group();
  };
  const auto read = [&](int i) {
    await_group();
    for (int lane = 0; lane < N; ++lane) {
      lanes[lane].read(i % kGroups);
    }
  };
  constexpr int kBlock = 32 / kGroup;  // groups whose padding is looked up together
  const auto prepare = [&](int i) {
    const int group = group_at(i);
    const bool new_block = i == 0 || (group & (kBlock - 1)) == (Lane::kBackward ? kBlock - 1 : 0);
    for (int lane = 0; lane < N; ++lane) {
      if (new_block) {
        lanes[lane].look_for_padding(group / kBlock * 32, i == 0);
      }
      lanes[lane].prepare((group & (kBlock - 1)) * kGroup);
    }
  };
  const auto advance = [&](int i, int steps, auto all) {
    for (int lane = 0; lane < N; ++lane) {
      lanes[lane].take();
    }
    fetch(i + kGroups - 1);
    read(i + 1);
    prepare(i + 1);
    for (int lane = 0; lane < N; ++lane) {
      lanes[lane].template complete<all()>(steps);
    }
  };
  for (int i = 0; i < kGroups - 1; ++i) {
    fetch(i);
  }
  read(0);
  prepare(0);
  // The last group in time may be a part of one. A branch in the loop would keep the compiler from
  // mixing instructions.
  const int rest = length % kGroup;
  int i = 0;
  if (Lane::kBackward && rest > 0) {
    advance(i++, rest, std::false_type());
  }
  for (const int whole = i + length / kGroup; i < whole; ++i) {
    advance(i, kGroup, std::true_type());
  }
  if (!Lane::kBackward && rest > 0) {
    advance(i, rest, std::false_type());
  }
}

// The largest chunk in which rows can be copied: 16 bytes, 4, or a single value.
template <typename T, typename... Pointers>
int largest_chunk(const Inputs<T>& in, Pointers... pointers) {
  const uintptr_t address =
      (reinterpret_cast<uintptr_t>(in.u) | ... | reinterpret_cast<uintptr_t>(pointers));
  const int64_t row = in.width / (in.bidirectional ? 2 : 1) * int64_t(sizeof(T));
  for (const int bytes : {16, 4}) {
    if (row % bytes == 0 && address % bytes == 0) {
      return bytes;
    }
  }
  return sizeof(T);
}

// Warps that the GPU runs at the same time without one waiting for another.
inline int64_t schedulers() {
  int device = 0, processors = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  return 4 * int64_t(processors);
}

template <typename Lane, typename Arguments>
__global__ void __launch_bounds__(kLanes) kernel(const __grid_constant__ Arguments args) {
  __shared__ alignas(16) char ring[Lane::kRing];
  Lane lane(args, blockIdx.x, threadIdx.x, ring);
  walk<1>(&lane, static_cast<int>(args.length));
  lane.finish();
}

// Starts the kernel of a Lane<T, V, bytes of a chunk, whether there is padding>: pairs of 16-bit
// channels unless even single ones leave every warp a scheduler to itself.
template <template <typename, int, int, bool> class Lane, typename T, typename Arguments>
cudaError_t launch(const Arguments& args, int chunk, cudaStream_t stream) {
  const auto start = [&](auto v, auto bytes) {
    const auto chosen = args.pad ? kernel<Lane<T, v(), bytes(), true>, Arguments>
                                 : kernel<Lane<T, v(), bytes(), false>, Arguments>;
    chosen<<<tiles<T, v()>(args), kLanes, 0, stream>>>(args);
    return cudaGetLastError();
  };
  if constexpr (sizeof(T) == 2) {
    if (chunk == 16) {
      return tiles<T, 2>(args) < schedulers() ? start(Number<1>(), Number<16>())
                                              : start(Number<2>(), Number<16>());
    }
    return chunk == 4 ? start(Number<1>(), Number<4>()) : start(Number<1>(), Number<2>());
  } else if constexpr (sizeof(T) == 4) {
    return chunk == 16 ? start(Number<1>(), Number<16>()) : start(Number<1>(), Number<4>());
  } else {
    return start(Number<1>(), Number<8>());
  }
}

}  // namespace sru
