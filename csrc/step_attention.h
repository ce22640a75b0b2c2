// Arguments of the attention of one decoding step.
#pragma once

#include <cstdint>

#include "recurrence.h"

namespace sru {

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
void step_attention_cpu(const StepAttention<T>& args);

}  // namespace sru
