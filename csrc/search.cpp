// The search of one sentence.
#include "search.h"

#include <algorithm>
#include <cmath>

namespace sru {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int32_t kNone = -1;  // no node, no slot, no row

// Uniform in [0, 1): a hash of the seed and where it is used (splitmix64's finaliser), so that
// nothing depends on which sentences are decoded together.
double uniform(uint64_t seed, uint64_t sentence, uint64_t sample, uint64_t step) {
  uint64_t x = seed;
  for (const uint64_t part : {sentence, sample, step}) {
    x += 0x9e3779b97f4a7c15u + part;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    x ^= x >> 31;
  }
  return double(x >> 11) / double(uint64_t(1) << 53);
}

// What sampling may choose from.
std::vector<Candidate> choices_of(
    const float* logits, int64_t size, float total, const SearchOptions& options) {
  std::vector<Candidate> kept;
  if (options.top_k > 0) {
    largest(logits, size, options.top_k, kept);
  } else {
    for (int64_t token = 0; token < size; ++token) {
      if (logits[token] > -kInfinity) {
        kept.push_back({logits[token], token});
      }
    }
  }
  if (options.top_p > 0) {
    std::sort(kept.begin(), kept.end(), better);
    double sum = 0;
    const auto end = std::find_if(kept.begin(), kept.end(), [&](const Candidate& candidate) {
      const bool enough = sum >= options.top_p;
      sum += std::exp(double(candidate.score) - total);
      return enough;
    });
    kept.erase(end, kept.end());
  }
  return kept;
}

}  // namespace

SentenceSearch::SentenceSearch(
    const SearchOptions& options, const Decoder& decoder, int64_t id, int64_t source,
    int64_t max_length, std::vector<int64_t> prefix)
    : options_(options),
      id_(id),
      vocabulary_(decoder.vocabulary()),
      window_(decoder.window()),
      max_length_(max_length),
      prefix_(std::move(prefix)),
      cache_(decoder.cache(source)) {
  nodes_.push_back({kNone, int32_t(options.bos), 0, kNone, {}});
  active_.push_back({0, kNone, 0, {}, {}});
}

std::vector<Hypothesis> SentenceSearch::finished() && {
  std::stable_sort(finished_.begin(), finished_.end(), [](const auto& a, const auto& b) {
    return a.score > b.score;
  });
  return std::move(finished_);
}

std::vector<int32_t> SentenceSearch::live_slots() const {
  std::vector<int32_t> live;
  for (const Active& active : active_) {
    live.insert(live.end(), active.before.begin(), active.before.end());
    if (nodes_[active.node].slot != kNone) {
      live.push_back(nodes_[active.node].slot);
    }
  }
  return live;
}

void SentenceSearch::append_rows(std::vector<Row>& rows) {
  for (Active& active : active_) {
    Node& node = nodes_[active.node];
    if (cache_.full()) {
      cache_.recycle(live_slots());
    }
    node.slot = cache_.take();
    if (options_.align) {
      node.alignment.assign(cache_.source(), 0);
    }
    rows.push_back(
        {&cache_, active.row, node.token, node.slot, &active.before,
         options_.align ? node.alignment.data() : nullptr});
    active.row = rows.size() - 1;
  }
}

void SentenceSearch::suggest(int64_t i, float* logits) {
  Active& active = active_[i];
  active.candidates.clear();
  if (options_.temperature != 1) {
    const float temperature = options_.temperature;
    std::transform(
        logits, logits + vocabulary_, logits, [=](float logit) { return logit / temperature; });
  }
  const float total = log_sum_exp(logits, vocabulary_);
  logits[options_.unk] -= options_.unk_penalty;
  const bool last = step_ >= max_length_;
  const bool forced = !last && step_ < int64_t(prefix_.size());
  if (last || forced) {
    const int64_t token = last ? options_.eos : prefix_[step_];
    active.candidates.push_back({logits[token], token});
  } else {
    logits[options_.pad] = -kInfinity;
    if (step_ < options_.min_length) {
      logits[options_.eos] = -kInfinity;
    }
    ban_repeats(active, logits);
    if (options_.sample) {
      draw(active, logits, total);
    } else {
      largest(logits, vocabulary_, 2 * options_.beam, active.candidates);
    }
  }
  const float before = nodes_[active.node].score;
  for (Candidate& candidate : active.candidates) {
    candidate.score = candidate.score - total + before;
  }
}

// What would repeat an n-gram, the first token being the begin of the sentence.
void SentenceSearch::ban_repeats(const Active& active, float* logits) const {
  const int64_t n = options_.no_repeat_ngram;
  if (n == 0 || step_ + 2 - n <= 0) {
    return;
  }
  const std::vector<int64_t> tokens = tokens_to(active.node);
  const auto last = tokens.end() - (n - 1);
  for (auto first = tokens.begin(); first < last; ++first) {
    if (std::equal(last, tokens.end(), first)) {
      logits[first[n - 1]] = -kInfinity;
    }
  }
}

// One token for every sample that is to go on from here.
void SentenceSearch::draw(Active& active, float* logits, float total) {
  const std::vector<Candidate> kept = choices_of(logits, vocabulary_, total, options_);
  double sum = 0;
  std::vector<double> sums;
  for (const Candidate& candidate : kept) {
    sums.push_back(sum += std::exp(double(candidate.score) - total));
  }
  for (int64_t sample = 0; !kept.empty() && sample < (forked_ ? 1 : options_.beam); ++sample) {
    const double point = sum * uniform(options_.seed, id_, active.sample + sample, step_);
    const auto drawn = std::upper_bound(sums.begin(), sums.end() - 1, point);
    active.candidates.push_back(kept[drawn - sums.begin()]);
  }
}

void SentenceSearch::advance() {
  struct Choice {
    Candidate candidate;
    const Active* parent;
  };
  std::vector<Choice> choices;
  for (const Active& active : active_) {
    for (const Candidate& candidate : active.candidates) {
      if (candidate.score > -kInfinity) {
        choices.push_back({candidate, &active});
      }
    }
  }
  const bool free = step_ >= int64_t(prefix_.size());
  if (!options_.sample) {
    std::stable_sort(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) {
      return better(a.candidate, b.candidate);
    });
    choices.resize(std::min<size_t>(choices.size(), 2 * options_.beam));
  }
  std::vector<Active> next;
  for (size_t i = 0; i < choices.size(); ++i) {
    const auto& [candidate, parent] = choices[i];
    if (candidate.token == options_.eos) {
      if (int64_t(i) < options_.beam && int64_t(finished_.size()) < options_.beam) {
        finish(add(*parent, candidate));
      }
    } else if (int64_t(next.size()) < options_.beam) {
      next.push_back({add(*parent, candidate), parent->row, 0, parent->before, {}});
      next.back().sample = options_.sample && !forked_ && free ? i : parent->sample;
      next.back().before.push_back(nodes_[parent->node].slot);
      if (window_ >= 0 && int64_t(next.back().before.size()) > window_) {
        next.back().before.erase(next.back().before.begin());
      }
    }
  }
  forked_ = forked_ || free;
  done_ = next.empty() || step_ >= max_length_ || int64_t(finished_.size()) == options_.beam;
  active_ = std::move(next);
  ++step_;
}

int32_t SentenceSearch::add(const Active& parent, const Candidate& candidate) {
  nodes_.push_back({parent.node, int32_t(candidate.token), candidate.score, kNone, {}});
  return nodes_.size() - 1;
}

std::vector<int64_t> SentenceSearch::tokens_to(int32_t node) const {
  std::vector<int64_t> tokens;
  for (; node != kNone; node = nodes_[node].parent) {
    tokens.push_back(nodes_[node].token);
  }
  std::reverse(tokens.begin(), tokens.end());
  return tokens;
}

void SentenceSearch::finish(int32_t node) {
  const float total = nodes_[node].score;
  Hypothesis hypothesis;
  std::vector<int32_t> path;
  for (int32_t i = node; nodes_[i].parent != kNone; i = nodes_[i].parent) {
    path.push_back(i);
  }
  for (auto i = path.rbegin(); i != path.rend(); ++i) {
    const Node &own = nodes_[*i], &before = nodes_[own.parent];
    hypothesis.tokens.push_back(own.token);
    hypothesis.scores.push_back(own.score - before.score);
    hypothesis.alignment.insert(
        hypothesis.alignment.end(), before.alignment.begin(), before.alignment.end());
  }
  hypothesis.score = options_.normalise
                         ? total / float(std::pow(double(path.size()), options_.length_penalty))
                         : total;
  finished_.push_back(std::move(hypothesis));
}

}  // namespace sru
