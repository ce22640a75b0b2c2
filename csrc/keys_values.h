// Keys and values of a sentence's source and hypotheses, of all layers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace sru {

// A slot holds a token's keys and values in every layer: the source's first, then one for each
// token of each hypothesis. Hypotheses know the slots they see, so that none is ever moved; those
// that none sees any more are given out again.
class KeysValues {
 public:
  static constexpr int64_t kFirstSlots = 32;  // for hypotheses

  // width: of keys and values together, in bytes. The source's slots are there from the start.
  KeysValues(int64_t layers, int64_t width, int64_t source)
      : width_(width), source_(source), layers_(layers) {
    grow(source + kFirstSlots);
  }

  int64_t source() const { return source_; }
  int64_t slots() const { return slots_; }
  char* at(int64_t layer, int64_t slot) { return layers_[layer].get() + slot * width_; }

  bool full() const { return free_.empty(); }

  int32_t take() {
    const int32_t slot = free_.back();
    free_.pop_back();
    return slot;
  }

  // Slots of hypotheses that are not in `live` become free; doubled if half remain in use.
  void recycle(const std::vector<int32_t>& live) {
    std::vector<bool> used(slots_);
    for (const int32_t slot : live) {
      used[slot] = true;
    }
    free_.clear();
    for (int64_t slot = slots_ - 1; slot >= source_; --slot) {
      if (!used[slot]) {
        free_.push_back(int32_t(slot));
      }
    }
    if (2 * int64_t(free_.size()) < slots_ - source_) {
      grow(2 * slots_ - source_);
    }
  }

 private:
  void grow(int64_t slots) {
    for (auto& layer : layers_) {
      std::unique_ptr<char[]> grown(new char[slots * width_]);  // left as it is
      if (slots_ > 0) {
        memcpy(grown.get(), layer.get(), slots_ * width_);
      }
      layer = std::move(grown);
    }
    for (int64_t slot = slots - 1; slot >= std::max(slots_, source_); --slot) {
      free_.push_back(int32_t(slot));
    }
    slots_ = slots;
  }

  int64_t width_, source_, slots_ = 0;
  std::vector<std::unique_ptr<char[]>> layers_;
  std::vector<int32_t> free_;
};

}  // namespace sru
