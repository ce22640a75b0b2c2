// Dropout whose mask is a hash of the seed and the element's index: nothing is stored for the
// backward pass, which is the same call on the gradient, and any thread makes any part.
#include <algorithm>

#include <ATen/Parallel.h>

#include "cpu.h"
#include "operators.h"

namespace sru {
namespace {

constexpr int64_t kBlock = int64_t(1) << 16;  // elements a thread takes at once

// A bijection of 32 bits whose every output bit depends on every input bit (multiply and
// xor-shift, as the finaliser of MurmurHash3).
SRU_INLINE uint32_t mix(uint32_t x) {
  x ^= x >> 16;
  x *= 0x85ebca6bu;
  x ^= x >> 13;
  x *= 0xc2b2ae35u;
  x ^= x >> 16;
  return x;
}

// One block of at most 2^32 elements: two rounds, each with a key of its own.
template <typename T>
struct Block {
  const T* in;
  T* out;
  uint32_t size, first, low, high, threshold;
  State<T> scale;

  SRU_INLINE void operator()() const {
    for (uint32_t i = 0; i < size; ++i) {
      const uint32_t random = mix(mix(first + i + low) ^ high);
      const State<T> kept = load(in + i) * scale;
      store(out + i, random < threshold ? State<T>(0) : kept);
    }
  }
};

template <typename T>
struct Dropout {
  const T* in;
  T* out;
  int64_t size;
  double p;       // of zero; below 1
  uint64_t seed;  // equal seeds, equal masks
};

template <typename T>
void run(const Dropout<T>& args) {
  const int64_t blocks = (args.size + kBlock - 1) / kBlock;
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * kBlock;
      const uint32_t high = uint32_t(args.seed >> 32) + uint32_t(first >> 32) * 0x9e3779b9u;
      run_best(Block<T>{
          args.in + first, args.out + first, uint32_t(std::min(kBlock, args.size - first)),
          uint32_t(first), uint32_t(args.seed), high, uint32_t(args.p * 4294967296.0),
          State<T>(1 / (1 - args.p))});
    }
  });
}

}  // namespace

Tensor dropout(const Tensor& in, double p, int64_t seed) {
  TORCH_CHECK_VALUE(0 <= p && p < 1, "dropout: p must be at least 0 and below 1, got ", p);
  const Tensor dense = in.contiguous();
  const Tensor out = empty(dense.sizes(), dense.options());
  dispatch("dropout", dense, [&](auto type) {
    using T = decltype(type);
    run(Dropout<T>{data<T>(dense), data<T>(out), out.numel(), p, uint64_t(seed)});
  });
  return out;
}

}  // namespace sru
