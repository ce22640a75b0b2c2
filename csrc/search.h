// Beam search and sampling over a decoder, with the meaning that fairseq's SequenceGenerator gives
// to its options; sentences that end leave the batch, and others come in.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "candidates.h"
#include "decoder.h"

namespace sru {

struct SearchOptions {
  int64_t beam, min_length, no_repeat_ngram;
  double length_penalty, unk_penalty, temperature;
  bool normalise, align;
  int64_t pad, unk, eos, bos;
  int64_t rows;  // most hypotheses at a time, if one sentence has no more
  bool sample;
  int64_t top_k;  // sample from the best so many; 0: all
  double top_p;   // sample from the best that together are so likely; 0: all
  int64_t seed;
};

struct Hypothesis {
  std::vector<int64_t> tokens;   // with eos
  std::vector<float> scores;     // log-probability of each
  std::vector<float> alignment;  // (tokens, source)
  float score;
};

// The search of one sentence: a tree of tokens and its leaves that are still to be continued.
class SentenceSearch {
 public:
  // prefix: what hypotheses have to begin with. id: what its samples depend on besides the seed.
  SentenceSearch(
      const SearchOptions& options, const Decoder& decoder, int64_t id, int64_t source,
      int64_t max_length, std::vector<int64_t> prefix);

  bool done() const { return done_; }
  KeysValues& cache() { return cache_; }
  int64_t hypotheses() const { return active_.size(); }
  // The best first.
  std::vector<Hypothesis> finished() &&;

  // Append a row for each active hypothesis.
  void append_rows(std::vector<Row>& rows);

  // Candidates for the i-th active hypothesis from its logits, which are changed.
  void suggest(int64_t i, float* logits);

  // Choose among the candidates.
  void advance();

 private:
  struct Node {
    int32_t parent, token;
    float score;  // log-probability of all tokens up to here
    int32_t slot;
    std::vector<float> alignment;
  };
  struct Active {
    int32_t node;
    int64_t row;     // of the last step in which a token of it was read
    int64_t sample;  // its number
    std::vector<int32_t> before;
    std::vector<Candidate> candidates;
  };

  int32_t add(const Active& parent, const Candidate& candidate);
  void finish(int32_t node);
  std::vector<int64_t> tokens_to(int32_t node) const;
  void ban_repeats(const Active& active, float* logits) const;
  void draw(Active& active, float* logits, float total);
  std::vector<int32_t> live_slots() const;

  const SearchOptions& options_;
  int64_t id_, vocabulary_, window_, max_length_, step_ = 0;
  std::vector<int64_t> prefix_;
  KeysValues cache_;
  std::vector<Node> nodes_;
  std::vector<Active> active_;
  std::vector<Hypothesis> finished_;
  bool done_ = false;
  bool forked_ = false;  // whether there has been a choice
};

}  // namespace sru
