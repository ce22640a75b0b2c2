// Log-softmax and top-k of a row of logits, each in one pass.
#include "candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lanes.h"

namespace sru {
namespace {

constexpr int64_t kTogether = 64;  // logits compared with the least candidate at a time
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Maximum {
  const float* logits;
  int64_t size;
  float& result;

  SRU_INLINE void operator()() const {
    float most[kLanes];
    std::fill_n(most, kLanes, -kInfinity);
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        most[lane] = logits[i + lane] > most[lane] ? logits[i + lane] : most[lane];
      }
    }
    for (; i < size; ++i) {
      most[0] = logits[i] > most[0] ? logits[i] : most[0];
    }
    result = *std::max_element(most, most + kLanes);
  }
};

struct SumExp {
  const float* logits;
  int64_t size;
  float largest;
  float& result;

  SRU_INLINE void operator()() const {
    result = sum_over(
        size, [&](int64_t i) __attribute__((always_inline)) {
          float x = logits[i] - largest;
          x = x < -87.0f ? -87.0f : x;
          return exp_bounded(x);
        });
  }
};

// `found` holds the best so far in order, the least of which every other one has to exceed.
struct Largest {
  const float* logits;
  int64_t size;
  size_t count;
  std::vector<Candidate>& found;

  SRU_INLINE void operator()() const {
    float least = -kInfinity;
    for (int64_t first = 0; first < size; first += kTogether) {
      const int64_t n = std::min(kTogether, size - first);
      int any = 0;
      for (int64_t i = first; i < first + n; ++i) {
        any |= logits[i] > least;
      }
      for (int64_t i = first; any && i < first + n; ++i) {
        if (logits[i] > least) {
          least = insert(Candidate{logits[i], i});
        }
      }
    }
  }

  // The least of the best after `candidate` has taken its place among them.
  float insert(const Candidate& candidate) const {
    if (found.size() == count) {
      found.pop_back();
    }
    found.insert(std::upper_bound(found.begin(), found.end(), candidate, better), candidate);
    return found.size() < count ? -kInfinity : found.back().score;
  }
};

}  // namespace

float log_sum_exp(const float* logits, int64_t size) {
  float largest, sum;
  run_best(Maximum{logits, size, largest});
  if (largest == -kInfinity) {
    return largest;
  }
  run_best(SumExp{logits, size, largest, sum});
  return largest + std::log(sum);
}

void largest(const float* logits, int64_t size, int64_t count, std::vector<Candidate>& result) {
  result.clear();
  run_best(Largest{logits, size, size_t(count), result});
}

}  // namespace sru
