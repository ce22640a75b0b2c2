// The search over many sentences, as an operator.
#include <memory>
#include <numeric>

#include <ATen/Parallel.h>

#include "operators.h"
#include "search.h"

namespace sru {
namespace {

constexpr int64_t kRowsPerThread = 4;

// What there is to decode.
struct Sentences {
  Tensor source;       // (tokens, D), one sentence after the other; empty without an encoder
  Tensor ids;          // (N): what samples depend on besides the seed
  Tensor lengths;      // (N) of the sources
  Tensor max_lengths;  // (N) of the hypotheses, without eos
  Tensor prefix, prefix_lengths;  // (tokens), (N)

  int64_t size() const { return lengths.numel(); }
};

void check_lengths(const char* name, const Tensor& lengths, int64_t N) {
  TORCH_CHECK_VALUE(
      lengths.dim() == 1 && lengths.numel() == N && lengths.scalar_type() == at::kLong,
      "search: ", name, " is ", lengths.scalar_type(), " of shape ", lengths.sizes(),
      ", expected int64 (", N, ")");
  TORCH_CHECK_VALUE(
      N == 0 || lengths.min().item<int64_t>() >= 0, "search: ", name, " must not be negative");
}

void check(const Decoder& decoder, const Sentences& in, const SearchOptions& o) {
  const int64_t N = in.size(), V = decoder.vocabulary();
  check_lengths("ids", in.ids, N);
  check_lengths("lengths", in.lengths, N);
  check_lengths("max_lengths", in.max_lengths, N);
  check_lengths("prefix_lengths", in.prefix_lengths, N);
  check_lengths("prefix", in.prefix, in.prefix.numel());
  TORCH_CHECK_VALUE(
      in.source.dim() == 2 && in.source.scalar_type() == at::kFloat &&
          in.source.size(1) == decoder.source_size() &&
          in.source.size(0) == in.lengths.sum().item<int64_t>(),
      "search: source is ", in.source.scalar_type(), " of shape ", in.source.sizes(),
      ", expected float32 (sum of lengths, ", decoder.source_size(), ")");
  TORCH_CHECK_VALUE(
      in.prefix.numel() == in.prefix_lengths.sum().item<int64_t>() &&
          (in.prefix.numel() == 0 || in.prefix.max().item<int64_t>() < V),
      "search: prefix must have sum(prefix_lengths) tokens below ", V);
  for (const int64_t token : {o.pad, o.unk, o.eos, o.bos}) {
    TORCH_CHECK_VALUE(0 <= token && token < V, "search: token ", token, " is not below ", V);
  }
  TORCH_CHECK_VALUE(
      o.beam >= 1 && o.beam < V - 1, "search: beam must be from 1 to ", V - 2, ", got ", o.beam);
  TORCH_CHECK_VALUE(
      N == 0 || o.min_length <= in.max_lengths.min().item<int64_t>(), "search: min_length ",
      o.min_length, " is more than the least of max_lengths");
  TORCH_CHECK_VALUE(
      o.no_repeat_ngram == 0 || o.no_repeat_ngram >= 2,
      "search: no_repeat_ngram must be 0 or at least 2, got ", o.no_repeat_ngram);
  TORCH_CHECK_VALUE(o.temperature > 0, "search: temperature must be positive, got ", o.temperature);
  TORCH_CHECK_VALUE(
      0 <= o.top_p && o.top_p <= 1 && o.top_k >= 0,
      "search: top_k must not be negative and top_p be from 0 to 1");
}

// Decode all sentences, as many together as options.rows allows.
std::vector<std::vector<Hypothesis>> search(
    const Decoder& decoder, const Sentences& in, const SearchOptions& options) {
  const int64_t N = in.size(), V = decoder.vocabulary();
  std::vector<std::vector<Hypothesis>> results(N);
  std::vector<std::pair<int64_t, std::unique_ptr<SentenceSearch>>> active;
  const float* source = data<float>(in.source);
  const int64_t* prefix = data<int64_t>(in.prefix);
  DecodingState state;
  int64_t next = 0;
  while (next < N || !active.empty()) {
    std::vector<Source> sources;
    for (; next < N; ++next) {
      if (!active.empty() && (int64_t(active.size()) + 1) * options.beam > options.rows) {
        break;
      }
      const int64_t length = data<int64_t>(in.lengths)[next];
      const int64_t forced = data<int64_t>(in.prefix_lengths)[next];
      active.emplace_back(
          next,
          std::make_unique<SentenceSearch>(
              options, decoder, data<int64_t>(in.ids)[next], length,
              data<int64_t>(in.max_lengths)[next], std::vector<int64_t>(prefix, prefix + forced)));
      sources.push_back({&active.back().second->cache(), source});
      source += length * decoder.source_size();
      prefix += forced;
    }
    decoder.begin(sources, state);

    std::vector<Row> rows;
    std::vector<std::pair<SentenceSearch*, int64_t>> owners;
    for (const auto& [index, sentence] : active) {
      for (int64_t i = 0; i < sentence->hypotheses(); ++i) {
        owners.emplace_back(sentence.get(), i);
      }
      sentence->append_rows(rows);
    }
    float* logits = decoder.step(rows, state);
    at::parallel_for(0, rows.size(), kRowsPerThread, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        owners[row].first->suggest(owners[row].second, logits + row * V);
      }
    });

    for (auto& [index, sentence] : active) {
      sentence->advance();
      if (sentence->done()) {
        results[index] = std::move(*sentence).finished();
        sentence.reset();
      }
    }
    active.erase(
        std::remove_if(
            active.begin(), active.end(), [](const auto& entry) { return !entry.second; }),
        active.end());
  }
  return results;
}

template <typename T>
Tensor tensor_of(const std::vector<T>& numbers, at::ScalarType dtype) {
  const Tensor result = empty({int64_t(numbers.size())}, dtype);
  std::copy(numbers.begin(), numbers.end(), data<T>(result));
  return result;
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> search_sentences(
    const Decoder& decoder, const Tensor& source, const Tensor& ids, const Tensor& lengths,
    const Tensor& max_lengths, const Tensor& prefix, const Tensor& prefix_lengths, int64_t beam,
    int64_t min_length, int64_t no_repeat_ngram, double length_penalty, double unk_penalty,
    double temperature, bool normalise, bool align, int64_t pad, int64_t unk, int64_t eos,
    int64_t bos, int64_t rows, bool sample, int64_t top_k, double top_p, int64_t seed) {
  const SearchOptions options{
      beam,
      min_length,
      no_repeat_ngram,
      length_penalty,
      unk_penalty,
      temperature,
      normalise,
      align,
      pad,
      unk,
      eos,
      bos,
      rows,
      sample,
      top_k,
      top_p,
      seed};
  const Sentences in{source.contiguous(),      ids.contiguous(),    lengths.contiguous(),
                     max_lengths.contiguous(), prefix.contiguous(), prefix_lengths.contiguous()};
  check(decoder, in, options);
  std::vector<int64_t> counts, token_counts, tokens;
  std::vector<float> token_scores, scores, alignments;
  for (const auto& hypotheses : search(decoder, in, options)) {
    counts.push_back(hypotheses.size());
    for (const Hypothesis& hypothesis : hypotheses) {
      token_counts.push_back(hypothesis.tokens.size());
      tokens.insert(tokens.end(), hypothesis.tokens.begin(), hypothesis.tokens.end());
      token_scores.insert(token_scores.end(), hypothesis.scores.begin(), hypothesis.scores.end());
      scores.push_back(hypothesis.score);
      alignments.insert(alignments.end(), hypothesis.alignment.begin(), hypothesis.alignment.end());
    }
  }
  return {tensor_of(counts, at::kLong),  tensor_of(token_counts, at::kLong),
          tensor_of(tokens, at::kLong),  tensor_of(token_scores, at::kFloat),
          tensor_of(scores, at::kFloat), tensor_of(alignments, at::kFloat)};
}

}  // namespace sru
