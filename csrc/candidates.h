// The next tokens that a row of logits suggests.
#pragma once

#include <cstdint>
#include <vector>

namespace sru {

struct Candidate {
  float score;  // log-probability
  int64_t token;
};

inline bool better(const Candidate& a, const Candidate& b) {
  return a.score > b.score;
}

// The logarithm of the sum of exp(logits[i]); NaN if any is NaN.
float log_sum_exp(const float* logits, int64_t size);

// The `count` largest, the best first; of equals the first. -inf and NaN are left out. Scores are
// the logits.
void largest(const float* logits, int64_t size, int64_t count, std::vector<Candidate>& result);

}  // namespace sru
