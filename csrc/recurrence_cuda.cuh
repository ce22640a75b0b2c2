// What the forward and the backward CUDA kernels share. A block owns a tile: 32 V adjacent channels
// of one direction of one batch element, V per lane. It is one warp, or two, and walks through time
// alone, kGroup steps at once. A ring of kGroups groups in shared memory is filled ahead of it by
// asynchronous copies: the rows of a step (u0, u1, u2, highway, ...) are cut into chunks of 16
// bytes and dealt out to the lanes, so that one instruction copies a whole step. A lane computes
// the states of a group, one long chain, while it completes the group before: the compiler fills
// the gaps of one with the other.
//
// The forward pass keeps the state before each group; from it the backward pass recomputes the
// states within, whose gates it needs anyway.
#pragma once

#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "held.cuh"
#include "recurrence_cuda.h"
#include "ring.cuh"

namespace sru {

// Channels of a direction.
template <typename T>
SRU_INLINE int64_t side(const Inputs<T>& in) {
  return in.bidirectional ? in.width / 2 : in.width;
}

// Tiles of a direction of a batch element, and of all.
template <typename T, int V>
SRU_INLINE int64_t side_tiles(const Inputs<T>& in) {
  return (side(in) + kLanes * V - 1) / (kLanes * V);
}
template <typename T, int V>
unsigned tiles(const Inputs<T>& in) {
  return static_cast<unsigned>(in.batch * (in.bidirectional ? 2 : 1) * side_tiles<T, V>(in));
}

// The V channels of a lane, and their parameters. A lane past the last channel computes what the
// lane that has it does, and stores nothing.
template <typename T, int V>
struct Channels {
  using S = State<T>;
  int lane, row_lane;    // of the warp; whose channels in the rows of the ring
  bool owner;            // whether the channels are this lane's
  int64_t b, tile, end;  // of the tile: its first channel, the last of its direction + 1
  int64_t channel;
  Course course;
  Gates<S> gates[V];
  S mask[V], scale;
  uint32_t padded = 0;  // which of 32 steps are padding, a bit each
  bool ahead = false;   // whether this lane's of the next 32 is

  SRU_INLINE Channels(const Inputs<T>& in, int64_t index, int lane) : lane(lane) {
    const int64_t tiles = side_tiles<T, V>(in), sides = in.bidirectional ? 2 : 1;
    const int64_t in_batch = index % (sides * tiles), direction = in_batch / tiles;
    b = index / (sides * tiles);
    end = (direction + 1) * side(in);
    tile = direction * side(in) + in_batch % tiles * kLanes * V;
    owner = tile + lane * V < end;
    channel = owner ? tile + lane * V : end - V;
    course = Course(in, tile);
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

  template <typename To>
  SRU_INLINE void put(To* to, const S (&values)[V]) const {
    if (owner) {
      store<V>(to, values);
    }
  }

  // Without a highway its rows, `at` bytes into every step, are never copied: they are zero.
  SRU_INLINE void clear_highway(
      const Inputs<T>& in, char* ring, int step, int at, int steps) const {
    if (in.blocks == 3 && !in.x) {
      const S zero[V] = {};
      for (int k = 0; k < steps; ++k) {
        put(reinterpret_cast<T*>(ring + k * step + at) + row_lane * V, zero);
      }
    }
  }

  // Which steps of a group are padding, a bit each, for a walk through every group, or every other,
  // that starts with this one or has had the one before.
  template <bool Backward, int Every = 1>
  SRU_INLINE uint32_t padding(const Inputs<T>& in, int group, bool start) {
    constexpr int kBlock = 32 / kGroup;  // groups whose padding is looked up together
    const int at = group & (kBlock - 1);
    if (start || (Backward ? at >= kBlock - Every : at < Every)) {
      const int first = group / kBlock * 32;
      look_for_padding(in, first, Backward ? first - 32 : first + 32, start);
    }
    return padded >> at * kGroup;
  }

  // Sets `padded` of the 32 steps from `first` on; those from `next` on come after them.
  SRU_INLINE void look_for_padding(const Inputs<T>& in, int64_t first, int64_t next, bool start) {
    if (start) {
      ahead = is_padded(in, first + lane);
    }
    padded = warp::ballot(ahead);
    ahead = is_padded(in, next + lane);
  }

  SRU_INLINE bool is_padded(const Inputs<T>& in, int64_t step) const {
    return 0 <= step && step < in.length && in.pad[(course.t + course.sign * step) * in.batch + b];
  }
};

// Whether the k-th step of a group is padding, by the group's bits.
template <bool Padding>
SRU_INLINE bool is_padding(uint32_t bits, int k) {
  return Padding && (bits >> k & 1);
}

// Walks a lane through time.
template <typename Lane>
SRU_INLINE void walk(Lane& lane, int length) {
  constexpr int kGroups = Lane::kGroups;
  const int groups = (length + kGroup - 1) / kGroup;
  const auto group_at = [&](int i) { return Lane::kBackward ? groups - 1 - i : i; };
  const auto fetch = [&](int i) {
    lane.fetch(group_at(i) * kGroup, i % kGroups);
    warp::commit_copies();
  };
  const auto read = [&](int i) {
    await_group<kGroups>();
    lane.read(i % kGroups);
  };
  const auto prepare = [&](int i) { lane.prepare(group_at(i), i == 0); };
  const auto advance = [&](int i, int steps, auto all) {
    if constexpr (Lane::kAhead) {
      lane.take();
      fetch(i + kGroups - 1);
      read(i + 1);
      prepare(i + 1);
    } else {
      read(i);
      fetch(i + kGroups - 1);
      prepare(i);
      lane.take();
      warp::sync();  // the compiler reads rows again and keeps no registers for them
    }
    lane.template complete<decltype(all)::value>(steps);
  };
  for (int i = 0; i < kGroups - 1; ++i) {
    fetch(i);
  }
  if (Lane::kAhead) {
    read(0);
    prepare(0);
  }
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
  return 4 * warp::processors();
}

// Kernels for rows that can be copied in chunks of 16 bytes.
enum class Kernel {
  kPair,    // two warps a tile of a channel a lane: the chain of states binds
  kSingle,  // a warp a tile of a channel a lane
  kWide,    // a lane has two channels of 16 bits: rows of 128 bytes
  kSmall,   // the same with little memory, for tiles that would not all fit at once
};

// Channels a lane of the wide kernels.
template <typename T>
constexpr int kWidest = sizeof(T) == 2 ? 2 : 1;

// By how many tiles there are, or as benchmarks ask for it: FAIRSEQ_SRU_KERNEL=pair, single, wide
// or small.
template <typename T>
Kernel chosen_kernel(const Inputs<T>& in) {
  constexpr const char* names[] = {"pair", "single", "wide", "small"};
  if (const char* wanted = std::getenv("FAIRSEQ_SRU_KERNEL")) {
    for (int i = 0; i < 4; ++i) {
      if (std::strcmp(wanted, names[i]) == 0) {
        return static_cast<Kernel>(i);
      }
    }
  }
  if (tiles<T, 1>(in) <= schedulers()) {
    return Kernel::kPair;
  }
  return tiles<T, kWidest<T>>(in) <= 2 * schedulers() ? Kernel::kWide : Kernel::kSmall;
}

// The program of a kernel's lanes.
template <typename Lane>
struct Walk {
  static constexpr int kThreads = kLanes, kBlocks = Lane::kBlocks, kShared = Lane::kShared;

  template <typename Arguments>
  static SRU_INLINE void run(const Arguments& args, unsigned block, int index, char* shared) {
    Lane lane(args, block, index, shared);
    walk(lane, static_cast<int>(args.length));
    lane.finish();
  }
};

template <int N>
using Number = std::integral_constant<int, N>;

// Starts the chosen kernel: a Pair<T, whether there is padding> of two warps a tile, or a Lane<T,
// V, bytes of a chunk, whether there is padding, whether it is the small one> of one.
template <
    template <typename, int, int, bool, bool> class Lane, template <typename, bool> class Pair,
    typename T, typename Arguments>
cudaError_t launch(const Arguments& args, int chunk, cudaStream_t stream) {
  const auto start = [&](auto v, auto bytes, auto small) {
    const unsigned blocks = tiles<T, v()>(args);
    return args.pad
               ? warp::launch<Walk<Lane<T, v(), bytes(), true, small()>>>(args, blocks, stream)
               : warp::launch<Walk<Lane<T, v(), bytes(), false, small()>>>(args, blocks, stream);
  };
  if constexpr (sizeof(T) == 8) {
    return start(Number<1>(), Number<8>(), std::false_type());
  } else {
    if (chunk == 16) {
      const Kernel kernel = chosen_kernel(args);
      if (kernel == Kernel::kPair) {
        const unsigned blocks = tiles<T, 1>(args);
        return args.pad ? warp::launch<Pair<T, true>>(args, blocks, stream)
                        : warp::launch<Pair<T, false>>(args, blocks, stream);
      }
      if (kernel == Kernel::kSmall) {
        return start(Number<kWidest<T>>(), Number<16>(), std::true_type());
      }
      return kernel == Kernel::kWide ? start(Number<kWidest<T>>(), Number<16>(), std::false_type())
                                     : start(Number<1>(), Number<16>(), std::false_type());
    }
    if constexpr (sizeof(T) == 2) {
      if (chunk == 2) {
        return start(Number<1>(), Number<2>(), std::false_type());
      }
    }
    return start(Number<1>(), Number<4>(), std::false_type());
  }
}

}  // namespace sru
