// What the forward and the backward CUDA kernel share. A block is one warp and owns a tile: 32 V
// adjacent channels of one batch element, V per lane. It walks through time alone. A ring of
// kStages steps in shared memory is filled ahead of it by asynchronous copies: the rows of a step
// (u0, u1, u2, highway, ...) are cut into chunks of 16 bytes and dealt out to the lanes, so that
// one instruction copies a whole step. A lane reads a step from the ring two steps before it is due.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <type_traits>

#include "recurrence.h"

namespace sru {

// The CUDA kernels, for float, double, __half and __nv_bfloat16. B and D must not be 0.
template <typename T>
cudaError_t forward_cuda(const Forward<T>& args, cudaStream_t stream);
template <typename T>
cudaError_t backward_cuda(const Backward<T>& args, cudaStream_t stream);

constexpr int kLanes = 32;
constexpr int kStages = 32;  // a power of two
constexpr int kUnroll = 4;   // divides kStages and 32

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

// A lane's V values of the row that starts at `row`.
template <typename T, int V>
SRU_INLINE Held<T, V> hold(const char* row, int lane) {
  if constexpr (sizeof(T) > 2) {
    return reinterpret_cast<const Held<T, V>*>(row)[lane];
  } else if constexpr (V == 2) {
    return {reinterpret_cast<const uint32_t*>(row)[lane]};
  } else {
    return {reinterpret_cast<const uint16_t*>(row)[lane]};
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

SRU_INLINE __half2 pair(const float (&values)[2], Held<__half, 2>) {
  return __floats2half2_rn(values[0], values[1]);
}
SRU_INLINE __nv_bfloat162 pair(const float (&values)[2], Held<__nv_bfloat16, 2>) {
  return __floats2bfloat162_rn(values[0], values[1]);
}

template <int V, typename T>
SRU_INLINE void store(T* to, const State<T> (&values)[V]) {
  if constexpr (V == 1) {
    to[0] = static_cast<T>(values[0]);
  } else if constexpr (sizeof(T) > 2) {
    *reinterpret_cast<Held<T, V>*>(to) = {{values[0], values[1]}};
  } else {
    *reinterpret_cast<uint32_t*>(to) = bit_cast<uint32_t>(pair(values, Held<T, 2>()));
  }
}

// Copies a chunk from global to shared memory; asynchronous from sm_80 on, for 4, 8 and 16 bytes.
template <int Bytes>
SRU_INLINE void copy_chunk(char* shared, const char* global) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
    return;
  } else if constexpr (Bytes >= 4) {
    asm volatile(
        "cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(Bytes)
        : "memory");
    return;
  }
#endif
  struct alignas(Bytes) Chunk {
    char bytes[Bytes];
  };
  *reinterpret_cast<Chunk*>(shared) = *reinterpret_cast<const Chunk*>(global);
}

// Ends a stage: what was copied since the last one.
SRU_INLINE void end_stage() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until all but the latest kStages - 3 stages have arrived, for all lanes to see.
SRU_INLINE void await_stage() {
#if defined(__CUDA_ARCH__)
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 3) : "memory");
#endif
  __syncwarp();
#endif
}

// A lane's share in the copying of every step: `steps` times a chunk, a stride apart.
struct Copy {
  const char* from = nullptr;
  int64_t stride = 0;
  int steps = 0;
};

// How a channel's time goes: from t on, a step is `sign`. The backward pass starts at the end.
struct Walk {
  int64_t t, sign;

  template <typename T>
  SRU_INLINE Walk(const Inputs<T>& in, int64_t channel, bool backward)
      : t(in.time(channel, backward ? in.length - 1 : 0)),
        sign(in.reverse(channel) != backward ? -1 : 1) {}
};

// The copy of a chunk of row `row` of u and the highway input, from `channel` on.
template <typename T>
SRU_INLINE Copy input_copy(
    const Inputs<T>& in, const Walk& walk, int64_t b, int64_t channel, int row) {
  const int64_t u_stride = walk.sign * in.batch * in.blocks * in.width * int64_t(sizeof(T));
  const int steps = static_cast<int>(in.length);
  if (row < in.blocks) {
    const T* from = in.u + in.u_at(walk.t, b, channel) + row * in.width;
    return {reinterpret_cast<const char*>(from), u_stride, steps};
  }
  if (!in.x) {
    return {};
  }
  return {
      reinterpret_cast<const char*>(in.x + in.row_at(walk.t, b, channel)), u_stride / in.blocks,
      steps};
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
  uint32_t padded = 0;     // which of 32 steps are padding, a bit each
  bool ahead[2] = {};      // this lane's of the next 32: forwards in time, and reversed

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

  // Sets `padded` of the 32 steps from `first` on. Both directions may meet in a tile, and the lanes
  // ask together for either; on the GPU they ask 32 steps ahead.
  SRU_INLINE void look_for_padding(const Inputs<T>& in, int64_t first, bool backward) {
#ifdef __CUDA_ARCH__
    if (first == 0) {
      ask_for_padding(in, 0, backward);
    }
    padded = __ballot_sync(0xffffffffu, ahead[0]);
    if (in.bidirectional) {
      const uint32_t reversed = __ballot_sync(0xffffffffu, ahead[1]);
      padded = in.reverse(channel) ? reversed : padded;
    }
    ask_for_padding(in, first + 32, backward);
#else
    padded = 0;
    for (int i = 0; i < 32; ++i) {
      padded |= uint32_t(is_padded(in, Walk(in, channel, backward), first + i)) << i;
    }
#endif
  }

  SRU_INLINE bool is_padded(const Inputs<T>& in, const Walk& walk, int64_t step) const {
    return step < in.length && in.pad[(walk.t + walk.sign * step) * in.batch + b];
  }

  SRU_INLINE void ask_for_padding(const Inputs<T>& in, int64_t first, bool backward) {
    ahead[0] = is_padded(in, Walk(in, 0, backward), first + lane);
    if (in.bidirectional) {
      ahead[1] = is_padded(in, Walk(in, in.width - 1, backward), first + lane);
    }
  }
};

// Walks N lanes (one on the GPU; all of a warp on the host, for tests) through time together.
template <int N, typename Lane>
SRU_INLINE void walk(Lane* lanes, int length) {
  const auto fetch = [&](int step, int slot) {
    for (int i = 0; i < N; ++i) {
      lanes[i].fetch(step, slot);
    }
    end_stage();
  };
  const auto read = [&](int slot) {
    await_stage();
    for (int i = 0; i < N; ++i) {
      lanes[i].read(slot);
    }
  };
  for (int step = 0; step < kStages - 1; ++step) {
    fetch(step, step);
  }
  read(0);
  read(1);
  const auto advance = [&](int step, int free, int due) {
    fetch(step + kStages - 1, free);
    read(due);
    for (int i = 0; i < N; ++i) {
      lanes[i].advance(step);
    }
  };
  const auto look_for_padding = [&](int step) {
    if (step % 32 == 0) {
      for (int i = 0; i < N; ++i) {
        lanes[i].look_for_padding(step);
      }
    }
  };
  int step = 0;
  for (; step + kUnroll <= length; step += kUnroll) {
    look_for_padding(step);
    const int slot = step % kStages;
    const int before = (step + kStages - 1) % kStages, after = (step + kUnroll) % kStages;
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      advance(
          step + k, k == 0 ? before : slot + k - 1,
          k + 2 < kUnroll ? slot + k + 2 : after + k + 2 - kUnroll);
    }
  }
  for (; step < length; ++step) {
    look_for_padding(step);
    advance(step, (step + kStages - 1) % kStages, (step + 2) % kStages);
  }
}

// Whether rows can be copied in chunks of 16 bytes, and stored in pairs.
template <typename T, typename... Pointers>
bool has_whole_chunks(const Inputs<T>& in, Pointers... pointers) {
  const uintptr_t address =
      (reinterpret_cast<uintptr_t>(in.u) | ... | reinterpret_cast<uintptr_t>(pointers));
  const int64_t channels = 16 / sizeof(T) * (in.bidirectional ? 2 : 1);
  return in.width % channels == 0 && address % 16 == 0;
}

// Warps that the GPU runs at the same time without one waiting for another.
inline int64_t schedulers() {
  int device = 0, processors = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  return 4 * int64_t(processors);
}

// Calls launch(V, bytes of a chunk): pairs of 16-bit channels where there are warps enough, single ones where
// each warp would have a scheduler to itself, and chunks of one value where rows have no whole ones.
template <typename T, typename Launch>
cudaError_t choose_tiles(const Inputs<T>& in, bool whole_chunks, const Launch& launch) {
  if constexpr (sizeof(T) == 2) {
    if (whole_chunks) {
      return tiles<T, 2>(in) < schedulers()
                 ? launch(Number<1>(), Number<16>())
                 : launch(Number<2>(), Number<16>());
    }
  } else if constexpr (sizeof(T) == 4) {
    if (whole_chunks) {
      return launch(Number<1>(), Number<16>());
    }
  }
  return launch(Number<1>(), Number<sizeof(T)>());
}

}  // namespace sru
