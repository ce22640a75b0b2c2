// Attention of one decoding step on the CPU: keys and values are read where they lie, and only the
// slots that a row sees.
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "cpu.h"
#include "tensor.h"

namespace sru {
namespace {

constexpr int64_t kSlots = 4;        // read together
constexpr int64_t kLanes = 16;       // partial sums of a scalar product
constexpr int64_t kFewLanes = 4;     // at its end
constexpr int64_t kWork = 1 << 14;   // multiplications worth a thread

// y = q + alpha * softmax(q K^T / sqrt(head size)) V, per head, over the slots a row sees. All
// tensors have dense last dimensions.
template <typename T>
struct StepAttention {
  const T* q;            // (R, C), R = sentences * beam
  const T* keys_values;  // (sentences, slots, 2C)
  const T* mask;         // (R, slots): a slot is seen where it is not negative
  T* y;                  // (R, C)
  State<T> alpha;
  int64_t sentences, beam, slots, size, heads;
  int64_t sentence_stride, slot_stride, mask_stride;  // in numbers
};

template <typename T>
using Rows = std::array<const T*, kSlots>;

template <typename T, int64_t lanes>
SRU_INLINE void multiply_add(
    const State<T>* q, const Rows<T>& keys, int64_t i, State<T> (*sums)[kLanes]) {
  for (int64_t slot = 0; slot < kSlots; ++slot) {
    for (int64_t lane = 0; lane < lanes; ++lane) {
      sums[slot][lane] += q[i + lane] * load(keys[slot] + i + lane);
    }
  }
}

// The sum of 2 * half numbers, left in the first.
template <int64_t half, typename S>
SRU_INLINE void add_upper(S* sums) {
  for (int64_t lane = 0; lane < half; ++lane) {
    sums[lane] += sums[lane + half];
  }
  if constexpr (half > 1) {
    add_upper<half / 2>(sums);
  }
}

// Four scalar products with q at once.
template <typename T>
SRU_INLINE void scores_of(
    const State<T>* q, const Rows<T>& keys, int64_t size, State<T>* result) {
  using S = State<T>;
  S sums[kSlots][kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    multiply_add<T, kLanes>(q, keys, i, sums);
  }
  for (; i + kFewLanes <= size; i += kFewLanes) {
    multiply_add<T, kFewLanes>(q, keys, i, sums);
  }
  for (int64_t slot = 0; slot < kSlots; ++slot) {
    add_upper<kLanes / 2>(sums[slot]);
    result[slot] = sums[slot][0];
    for (int64_t rest = i; rest < size; ++rest) {
      result[slot] += q[rest] * load(keys[slot] + rest);
    }
  }
}

template <typename T>
SRU_INLINE void add_weighted(
    const State<T>* weights, const Rows<T>& values, int64_t size, State<T>* sum) {
  for (int64_t i = 0; i < size; ++i) {
    sum[i] += weights[0] * load(values[0] + i) + weights[1] * load(values[1] + i) +
        weights[2] * load(values[2] + i) + weights[3] * load(values[3] + i);
  }
}

// Weights of sum 1 in place of scores; what is 0 in the state's type beside the largest is 0.
template <typename S>
SRU_INLINE void softmax(S* scores, int64_t count) {
  const S limit = sizeof(S) == sizeof(double) ? S(-700) : S(-87);
  S largest = scores[0];
  for (int64_t i = 1; i < count; ++i) {
    largest = std::max(largest, scores[i]);
  }
  S sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const S x = scores[i] - largest;
    scores[i] = x < limit ? S(0) : exp_bounded(std::max(x, limit));
    sum += scores[i];
  }
  for (int64_t i = 0; i < count; ++i) {
    scores[i] /= sum;
  }
}

// Buffers of a thread.
template <typename T>
struct Scratch {
  std::vector<int64_t> seen;          // slots, then up to kSlots - 1 times the last one
  std::vector<State<T>> scores, q, sum;
};

// Rows [begin, end).
template <typename T>
struct Part {
  const StepAttention<T>& a;
  Scratch<T>& scratch;
  int64_t begin, end;

  SRU_INLINE void operator()() const {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t seen = find_seen(a.mask + row * a.mask_stride);
      for (int64_t head = 0; head < a.heads; ++head) {
        attend(row, head, seen);
      }
    }
  }

  SRU_INLINE int64_t find_seen(const T* mask) const {
    int64_t count = 0;
    for (int64_t slot = 0; slot < a.slots; ++slot) {
      scratch.seen[count] = slot;
      count += load(mask + slot) >= 0;
    }
    for (int64_t extra = 0; count > 0 && extra < kSlots - 1; ++extra) {
      scratch.seen[count + extra] = scratch.seen[count - 1];
    }
    return count;
  }

  SRU_INLINE void attend(int64_t row, int64_t head, int64_t seen) const {
    using S = State<T>;
    const int64_t size = a.size / a.heads, offset = head * size;
    const T* q = a.q + row * a.size + offset;
    T* y = a.y + row * a.size + offset;
    const T* keys = a.keys_values + row / a.beam * a.sentence_stride + offset;
    S *scores = scratch.scores.data(), *scaled = scratch.q.data(), *sum = scratch.sum.data();
    const S scale = S(1) / std::sqrt(S(size));
    for (int64_t i = 0; i < size; ++i) {
      scaled[i] = load(q + i) * scale;
      sum[i] = 0;
    }
    for (int64_t i = 0; i < seen; i += kSlots) {
      scores_of<T>(scaled, rows(keys, i), size, scores + i);
    }
    if (seen > 0) {
      softmax(scores, seen);
    }
    std::fill_n(scores + seen, kSlots - 1, S(0));
    for (int64_t i = 0; i < seen; i += kSlots) {
      add_weighted<T>(scores + i, rows(keys + a.size, i), size, sum);
    }
    for (int64_t i = 0; i < size; ++i) {
      store(y + i, load(q + i) + a.alpha * sum[i]);
    }
  }

  SRU_INLINE Rows<T> rows(const T* first, int64_t i) const {
    const int64_t* seen = scratch.seen.data() + i;
    return {
        first + seen[0] * a.slot_stride, first + seen[1] * a.slot_stride,
        first + seen[2] * a.slot_stride, first + seen[3] * a.slot_stride};
  }
};

template <typename T>
void run(const StepAttention<T>& args) {
  const int64_t grain = std::max<int64_t>(1, kWork / std::max<int64_t>(1, args.slots * args.size));
  at::parallel_for(0, args.sentences * args.beam, grain, [&](int64_t begin, int64_t end) {
    Scratch<T> scratch;
    scratch.seen.resize(args.slots + kSlots);
    scratch.scores.resize(args.slots + 2 * kSlots);
    scratch.q.resize(args.size);
    scratch.sum.resize(args.size);
    run_best(Part<T>{args, scratch, begin, end});
  });
}

Tensor step_attention(
    const Tensor& q, const Tensor& keys_values, const Tensor& mask, double alpha, int64_t heads) {
  TORCH_CHECK_VALUE(
      q.dim() == 2 && keys_values.dim() == 3 && mask.dim() == 2,
      "step_attention: q, keys_values and mask have shapes ", q.sizes(), ", ", keys_values.sizes(),
      " and ", mask.sizes(), ", expected (R, C), (N, slots, 2C) and (R, slots)");
  const int64_t R = q.size(0), C = q.size(1), N = keys_values.size(0), slots = keys_values.size(1);
  TORCH_CHECK_VALUE(
      keys_values.size(2) == 2 * C && mask.size(0) == R && mask.size(1) == slots &&
          (N == 0 ? R == 0 : R % N == 0),
      "step_attention: q ", q.sizes(), ", keys_values ", keys_values.sizes(), " and mask ",
      mask.sizes(), " do not fit (R, C), (N, slots, 2C) and (R, slots), N a divisor of R");
  TORCH_CHECK_VALUE(
      heads > 0 && C % heads == 0, "step_attention: ", heads, " heads do not divide ", C);
  TORCH_CHECK_TYPE(
      keys_values.scalar_type() == q.scalar_type() && mask.scalar_type() == q.scalar_type(),
      "step_attention: q is ", q.scalar_type(), ", keys_values ", keys_values.scalar_type(),
      ", mask ", mask.scalar_type(), "; they must agree");
  TORCH_CHECK_VALUE(
      q.is_contiguous() && keys_values.stride(2) == 1 && mask.stride(1) == 1,
      "step_attention: q must be contiguous, keys_values and mask dense in their last dimension");
  const Tensor y = at::empty(q.sizes(), q.options());
  if (y.numel() > 0) {
    dispatch("step_attention", q, [&](auto type) {
      using T = decltype(type);
      run(StepAttention<T>{
          data<T>(q), data<T>(keys_values), data<T>(mask), data<T>(y), State<T>(alpha), N, R / N,
          slots, C, heads, keys_values.stride(0), keys_values.stride(1), mask.stride(0)});
    });
  }
  return y;
}

}  // namespace
}  // namespace sru

TORCH_LIBRARY_FRAGMENT(fairseq_sru, m) {
  m.def(R"(step_attention(
      Tensor q, Tensor keys_values, Tensor mask, float alpha, int heads) -> Tensor)");
}

TORCH_LIBRARY_IMPL(fairseq_sru, CPU, m) {
  m.impl("step_attention", &sru::step_attention);
}
