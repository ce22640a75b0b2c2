// Attention of one query over chosen slots of keys and values, read where they lie.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "lanes.h"

namespace sru {

constexpr int64_t kSlots = 4;     // read together
constexpr int64_t kFewLanes = 4;  // at the end of a scalar product

template <typename T>
using SlotRows = std::array<const T*, kSlots>;

template <int64_t lanes, typename S, typename T>
SRU_INLINE void multiply_add(
    const S* q, const SlotRows<T>& keys, int64_t i, S (*sums)[kLanes]) {
  for (int64_t slot = 0; slot < kSlots; ++slot) {
    for (int64_t lane = 0; lane < lanes; ++lane) {
      sums[slot][lane] += q[i + lane] * load(keys[slot] + i + lane);
    }
  }
}

// Four scalar products with q at once.
template <typename S, typename T>
SRU_INLINE void scores_of(const S* q, const SlotRows<T>& keys, int64_t size, S* result) {
  S sums[kSlots][kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    multiply_add<kLanes>(q, keys, i, sums);
  }
  for (; i + kFewLanes <= size; i += kFewLanes) {
    multiply_add<kFewLanes>(q, keys, i, sums);
  }
  for (int64_t slot = 0; slot < kSlots; ++slot) {
    add_upper<kLanes / 2>(sums[slot]);
    result[slot] = sums[slot][0];
    for (int64_t rest = i; rest < size; ++rest) {
      result[slot] += q[rest] * load(keys[slot] + rest);
    }
  }
}

template <typename S, typename T>
SRU_INLINE void add_weighted(const S* weights, const SlotRows<T>& values, int64_t size, S* sum) {
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

// The slots that a query sees, and room for its scores; a thread's own.
template <typename S>
class Attention {
 public:
  Attention(int64_t most_slots, int64_t size)
      : seen_(most_slots + kSlots), scores_(most_slots + 2 * kSlots), q_(size), sum_(size) {}

  SRU_INLINE void clear() { count_ = 0; }
  SRU_INLINE void see_if(bool visible, int64_t slot) {
    seen_[count_] = slot;
    count_ += visible;
  }

  // Before attend, after the last slot.
  SRU_INLINE void complete() {
    for (int64_t extra = 0; count_ > 0 && extra < kSlots - 1; ++extra) {
      seen_[count_ + extra] = seen_[count_ - 1];
    }
  }

  // y = q + alpha softmax(q K^T / sqrt(size)) V for one head; keys are `stride` numbers apart,
  // values `offset` numbers behind them.
  template <typename Q, typename T>
  SRU_INLINE void attend(
      const Q* q, const T* keys, int64_t offset, int64_t stride, int64_t size, S alpha, Q* y) {
    S *scores = scores_.data(), *scaled = q_.data(), *sum = sum_.data();
    const S scale = S(1) / std::sqrt(S(size));
    for (int64_t i = 0; i < size; ++i) {
      scaled[i] = load(q + i) * scale;
      sum[i] = 0;
    }
    for (int64_t i = 0; i < count_; i += kSlots) {
      scores_of(scaled, rows(keys, i, stride), size, scores + i);
    }
    if (count_ > 0) {
      softmax(scores, count_);
    }
    std::fill_n(scores + count_, kSlots - 1, S(0));
    for (int64_t i = 0; i < count_; i += kSlots) {
      add_weighted(scores + i, rows(keys + offset, i, stride), size, sum);
    }
    for (int64_t i = 0; i < size; ++i) {
      store(y + i, load(q + i) + alpha * sum[i]);
    }
  }

  // Of the last attend, in the order in which the slots were given.
  const S* weights() const { return scores_.data(); }

 private:
  template <typename T>
  SRU_INLINE SlotRows<T> rows(const T* first, int64_t i, int64_t stride) const {
    const int64_t* seen = seen_.data() + i;
    return {
        first + seen[0] * stride, first + seen[1] * stride, first + seen[2] * stride,
        first + seen[3] * stride};
  }

  int64_t count_ = 0;
  std::vector<int64_t> seen_;  // slots, then up to kSlots - 1 times the last one
  std::vector<S> scores_, q_, sum_;
};

}  // namespace sru
