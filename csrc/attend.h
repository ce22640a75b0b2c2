// Attention of one query over chosen slots of keys and values, read where they lie.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>
#include <vector>

#include "lanes.h"

namespace sru {

constexpr int64_t kSlots = 4;     // read together
constexpr int64_t kFewLanes = 4;  // at the end of a scalar product

template <typename T>
using SlotRows = std::array<const T*, kSlots>;

// Numbers [i, end) of the keys times q, added to sums; the first i not done.
template <typename Lanes, typename S, typename T>
SRU_INLINE int64_t
multiply_add(const S* q, const SlotRows<T>& keys, int64_t i, int64_t size, Lanes (&sums)[kSlots]) {
  constexpr int64_t lanes = sizeof(Lanes) / sizeof(S);
  for (; i + lanes <= size; i += lanes) {
    Lanes x, key;
    load_lanes(q + i, x);
    for (int64_t slot = 0; slot < kSlots; ++slot) {
      load_lanes(keys[slot] + i, key);
      sums[slot] += x * key;
    }
  }
  return i;
}

// How q lies for keys of type T: bfloat16 come as pairs, so of every 32 numbers first those in even
// places; the number of those that lie so.
template <typename T>
SRU_INLINE int64_t paired(int64_t size) {
  return std::is_same_v<T, c10::BFloat16> ? size / (2 * kLanes) * (2 * kLanes) : 0;
}

SRU_INLINE int64_t place(int64_t i, int64_t pairs) {
  constexpr int64_t both = 2 * kLanes;
  return i < pairs ? i / both * both + i % 2 * kLanes + i % both / 2 : i;
}

// As multiply_add, the paired numbers.
template <typename Lanes, typename S, typename T>
SRU_INLINE int64_t
multiply_add_pairs(const S* q, const SlotRows<T>& keys, int64_t size, Lanes (&sums)[kSlots]) {
  if constexpr (std::is_same_v<T, c10::BFloat16>) {
    for (int64_t i = 0; i < paired<T>(size); i += 2 * kLanes) {
      Lanes x_even, x_odd, even, odd;
      load_lanes(q + i, x_even);
      load_lanes(q + i + kLanes, x_odd);
      for (int64_t slot = 0; slot < kSlots; ++slot) {
        load_pairs(keys[slot] + i, even, odd);
        sums[slot] += x_even * even;
        sums[slot] += x_odd * odd;
      }
    }
  }
  return paired<T>(size);
}

// Four scalar products with q at once.
template <typename S, typename T>
SRU_INLINE void scores_of(const S* q, const SlotRows<T>& keys, int64_t size, S* result) {
  using Lanes = typename Vector<S>::Lanes;
  using FewLanes = typename Vector<S, kFewLanes * sizeof(S)>::Lanes;
  constexpr int64_t lanes = sizeof(Lanes) / sizeof(S);
  Lanes sums[kSlots] = {};
  FewLanes few[kSlots] = {};
  int64_t i = multiply_add_pairs(q, keys, size, sums);
  i = multiply_add(q, keys, i, size, sums);
  i = multiply_add(q, keys, i, size, few);
  for (int64_t slot = 0; slot < kSlots; ++slot) {
    S parts[lanes], rest[kFewLanes];
    memcpy(parts, &sums[slot], sizeof(parts));
    memcpy(rest, &few[slot], sizeof(rest));
    add_upper<lanes / 2>(parts);
    add_upper<kFewLanes / 2>(rest);
    result[slot] = parts[0] + rest[0];
    for (int64_t j = i; j < size; ++j) {
      result[slot] += q[j] * load(keys[slot] + j);
    }
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
      : seen_(most_slots + kSlots), scores_(most_slots + kSlots), q_(size) {}

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
    S *scores = scores_.data(), *scaled = q_.data();
    const S scale = S(1) / std::sqrt(S(size));
    for (int64_t i = 0; i < size; ++i) {
      scaled[place(i, paired<T>(size))] = load(q + i) * scale;
    }
    for (int64_t i = 0; i < count_; i += kSlots) {
      scores_of(scaled, rows(keys, i, stride), size, scores + i);
    }
    if (count_ > 0) {
      softmax(scores, count_);
    }
    using Lanes = typename Vector<S>::Lanes;
    using FewLanes = typename Vector<S, kFewLanes * sizeof(S)>::Lanes;
    const T* values = keys + offset;
    int64_t i = weigh_pairs<4>(q, values, stride, 0, paired<T>(size), alpha, y);
    i = weigh_pairs<1>(q, values, stride, i, paired<T>(size), alpha, y);
    i = weigh<4, Lanes>(q, values, stride, i, size, alpha, y);
    i = weigh<1, Lanes>(q, values, stride, i, size, alpha, y);
    i = weigh<1, FewLanes>(q, values, stride, i, size, alpha, y);
    weigh<1, typename Vector<S, sizeof(S)>::Lanes>(q, values, stride, i, size, alpha, y);
  }

  // Of the last attend, in the order in which the slots were given.
  const S* weights() const { return scores_.data(); }

 private:
  // Numbers [i, size) of y in steps of n vectors; the first one not done.
  template <int n, typename Lanes, typename Q, typename T>
  SRU_INLINE int64_t
  weigh(const Q* q, const T* values, int64_t stride, int64_t i, int64_t size, S alpha, Q* y) const {
    constexpr int64_t lanes = sizeof(Lanes) / sizeof(S);
    for (; i + n * lanes <= size; i += n * lanes) {
      Lanes sums[n] = {};
      for (int64_t slot = 0; slot < count_; ++slot) {
        const T* value = values + seen_[slot] * stride + i;
        for (int part = 0; part < n; ++part) {
          Lanes x;
          load_lanes(value + part * lanes, x);
          sums[part] += scores_[slot] * x;
        }
      }
      S parts[n * lanes];
      memcpy(parts, sums, sizeof(parts));
      for (int64_t j = 0; j < n * lanes; ++j) {
        store(y + i + j, load(q + i + j) + alpha * parts[j]);
      }
    }
    return i;
  }

  // As weigh, pairs of vectors of numbers [i, pairs).
  template <int n, typename Q, typename T>
  SRU_INLINE int64_t weigh_pairs(
      const Q* q, const T* values, int64_t stride, int64_t i, int64_t pairs, S alpha, Q* y) const {
    if constexpr (std::is_same_v<T, c10::BFloat16>) {
      for (; i + 2 * n * kLanes <= pairs; i += 2 * n * kLanes) {
        typename Vector<S>::Lanes sums[2 * n] = {}, even, odd;
        for (int64_t slot = 0; slot < count_; ++slot) {
          const T* value = values + seen_[slot] * stride + i;
          for (int part = 0; part < n; ++part) {
            load_pairs(value + 2 * part * kLanes, even, odd);
            sums[2 * part] += scores_[slot] * even;
            sums[2 * part + 1] += scores_[slot] * odd;
          }
        }
        S parts[2 * n * kLanes];
        memcpy(parts, sums, sizeof(parts));
        for (int64_t j = 0; j < 2 * n * kLanes; ++j) {
          store(y + i + j, load(q + i + j) + alpha * parts[place(j, 2 * n * kLanes)]);
        }
      }
    }
    return i;
  }

  template <typename T>
  SRU_INLINE SlotRows<T> rows(const T* first, int64_t i, int64_t stride) const {
    const int64_t* seen = seen_.data() + i;
    return {
        first + seen[0] * stride, first + seen[1] * stride, first + seen[2] * stride,
        first + seen[3] * stride};
  }

  int64_t count_ = 0;
  std::vector<int64_t> seen_;  // slots, then up to kSlots - 1 times the last one
  std::vector<S> scores_, q_;
};

}  // namespace sru
