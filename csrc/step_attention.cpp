// Attention of one decoding step on the CPU: keys and values are read where they lie, and only the
// slots that a row sees.
#include <algorithm>

#include <ATen/Parallel.h>

#include "attend.h"
#include "operators.h"

namespace sru {
namespace {

constexpr int64_t kWork = 1 << 14;  // multiplications worth a thread

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

// Rows [begin, end).
template <typename T>
struct Part {
  const StepAttention<T>& a;
  Attention<State<T>>& attention;
  int64_t begin, end;

  SRU_INLINE void operator()() const {
    const int64_t size = a.size / a.heads;
    for (int64_t row = begin; row < end; ++row) {
      const T* mask = a.mask + row * a.mask_stride;
      attention.clear();
      for (int64_t slot = 0; slot < a.slots; ++slot) {
        attention.see_if(load(mask + slot) >= 0, slot);
      }
      attention.complete();
      for (int64_t first = 0; first < a.size; first += size) {
        attention.attend(
            a.q + row * a.size + first, a.keys_values + row / a.beam * a.sentence_stride + first,
            a.size, a.slot_stride, size, a.alpha, a.y + row * a.size + first);
      }
    }
  }
};

template <typename T>
void run(const StepAttention<T>& args) {
  const int64_t grain = std::max<int64_t>(1, kWork / std::max<int64_t>(1, args.slots * args.size));
  at::parallel_for(0, args.sentences * args.beam, grain, [&](int64_t begin, int64_t end) {
    Attention<State<T>> attention(args.slots, args.size);
    run_best(Part<T>{args, attention, begin, end});
  });
}

}  // namespace

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
  const Tensor y = empty(q.sizes(), q.options());
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

}  // namespace sru
