// Building a decoder from its weights, and its step from embedding to logits: Stack.step between
// the model's first and last matrix.
#include "decoder.h"

#include <algorithm>
#include <set>

#include <ATen/Parallel.h>

#include "cpu.h"
#include "operators.h"

namespace sru {
namespace {

// Takes weights by name, and tells of those that nobody took.
class Reader {
 public:
  Reader(const Weights& weights, const std::string& isa) : weights_(weights), isa_(isa) {}

  bool has(const std::string& name) const { return weights_.count(name); }

  Tensor tensor(const std::string& name) {
    TORCH_CHECK_VALUE(has(name), "decoder: weight ", name, " is missing");
    taken_.insert(name);
    return weights_.at(name).contiguous();
  }

  Tensor floats(const std::string& name) {
    const Tensor result = tensor(name);
    TORCH_CHECK_TYPE(
        result.scalar_type() == at::kFloat, "decoder: ", name, " is ", result.scalar_type(),
        ", expected float32");
    return result;
  }

  Tensor floats(const std::string& name, at::IntArrayRef sizes) {
    const Tensor result = floats(name);
    check_sizes(name, result.sizes() == sizes);
    return result;
  }

  // What multiplies the rows of an int8 matrix; undefined for others.
  Tensor scale(const std::string& name, const Tensor& weight) {
    return weight.scalar_type() == at::kChar ? floats(name + ".scale", {weight.size(0)}) : Tensor();
  }

  // null if there is none. order: which outputs, -1 for one of zeros.
  Matrix matrix(
      const std::string& name, int64_t inputs, const std::vector<int64_t>* order = nullptr) {
    if (!has(name + ".weight")) {
      return {};
    }
    Tensor weight = tensor(name + ".weight");
    check_sizes(name + ".weight", weight.dim() == 2 && weight.size(1) == inputs);
    Tensor scale = this->scale(name, weight);
    if (order) {
      weight = select(weight, *order);
      scale = scale.defined() ? select(scale, *order) : scale;
    }
    return std::make_shared<PackedMatrix>(
        weight, scale.defined() ? OptionalTensor(scale) : std::nullopt, isa_);
  }

  LayerNorm norm(const std::string& name, int64_t size, double eps) {
    if (!has(name + ".weight")) {
      return {};
    }
    return {floats(name + ".weight", {size}), floats(name + ".bias", {size}), float(eps)};
  }

  static void check_sizes(const std::string& name, bool fit) {
    TORCH_CHECK_VALUE(fit, "decoder: the sizes of ", name, " do not fit the others");
  }

  void finish() const {
    for (const auto& [name, weight] : weights_) {
      TORCH_CHECK_VALUE(taken_.count(name), "decoder: unknown weight ", name);
    }
  }

 private:
  static Tensor select(const Tensor& tensor, const std::vector<int64_t>& order) {
    auto sizes = tensor.sizes().vec();
    sizes[0] += 1;
    const Tensor padded = zeros(sizes, tensor.options());
    padded.narrow(0, 0, tensor.size(0)).copy_(tensor);
    Tensor index = empty({int64_t(order.size())}, at::kLong);
    std::transform(order.begin(), order.end(), data<int64_t>(index), [&](int64_t i) {
      return i < 0 ? tensor.size(0) : i;
    });
    return padded.index_select(0, index);
  }

  const Weights& weights_;
  const std::string isa_;
  std::set<std::string> taken_;
};

double option(const Options& options, const std::string& name) {
  TORCH_CHECK_VALUE(options.count(name), "decoder: option ", name, " is missing");
  return options.at(name);
}

// The outputs of Wo, block by block of `size`, in groups of 16 channels with their blocks.
std::vector<int64_t> grouped(int64_t size, int64_t blocks) {
  std::vector<int64_t> order;
  for (int64_t first = 0; first < size; first += kBlock) {
    for (int64_t block = 0; block < blocks; ++block) {
      for (int64_t channel = first; channel < first + kBlock; ++channel) {
        order.push_back(channel < size ? block * size + channel : -1);
      }
    }
  }
  return order;
}

Layer read_layer(Reader& reader, const std::string& name, int64_t inputs, const Options& options) {
  const double eps = option(options, "norm_eps");
  Layer layer;
  layer.heads = int64_t(option(options, "heads"));
  layer.highway = option(options, "highway") != 0;
  layer.scale = float(option(options, "scale"));
  layer.pre_norm = reader.norm(name + ".pre_norm", inputs, eps);
  layer.q_proj =
      reader.matrix(name + (reader.has(name + ".in_proj.weight") ? ".in_proj" : ".q_proj"), inputs);
  const int64_t features = layer.q_proj ? layer.q_proj->out() : inputs;
  layer.kv_proj = reader.matrix(name + ".kv_proj", features);
  if (layer.kv_proj) {
    layer.alpha = reader.floats(name + ".alpha", {1}).item<float>();
    Reader::check_sizes(
        name, layer.q_proj && layer.kv_proj->out() == 2 * features && layer.heads > 0 &&
                  features % layer.heads == 0);
  }
  layer.attn_norm = reader.norm(name + ".attn_norm", features, eps);

  const Tensor bias = reader.floats(name + ".recurrence.bias");
  Reader::check_sizes(name, bias.dim() == 2 && bias.size(0) == 2 && bias.size(1) > 0);
  layer.size = bias.size(1);
  const Tensor out = reader.tensor(name + ".out_proj.weight");
  const int64_t outputs = out.dim() == 2 ? out.size(0) : 0;
  layer.blocks = outputs / layer.size;
  Reader::check_sizes(
      name, outputs % layer.size == 0 && (layer.blocks == 3 || layer.blocks == 4) &&
                (layer.blocks == 4 || !layer.highway || layer.size == inputs));
  const auto order = grouped(layer.size, layer.blocks);
  layer.out_proj = reader.matrix(name + ".out_proj", features, &order);
  layer.gates = zeros({4, int64_t(order.size()) / layer.blocks}, at::kFloat);
  layer.gates.slice(0, 2, 4).slice(1, 0, layer.size).copy_(bias);
  if (reader.has(name + ".recurrence.weight_c")) {
    layer.gates.slice(0, 0, 2)
        .slice(1, 0, layer.size)
        .copy_(reader.floats(name + ".recurrence.weight_c", {2, layer.size}));
  }
  layer.post_norm = reader.norm(name + ".post_norm", layer.size, eps);
  return layer;
}

}  // namespace

Decoder::Decoder(const Weights& weights, const Options& options, const std::string& isa)
    : embed_scale_(float(option(options, "embed_scale"))),
      window_(int64_t(option(options, "window"))) {
  Reader reader(weights, isa);
  embedding_ = reader.tensor("embed_tokens.weight");
  const at::ScalarType type = embedding_.scalar_type();
  TORCH_CHECK_TYPE(
      type == at::kFloat || type == at::kBFloat16 || type == at::kChar,
      "decoder: embed_tokens.weight is ", type, ", expected float32, bfloat16 or int8");
  Reader::check_sizes("embed_tokens", embedding_.dim() == 2);
  embedding_scale_ = reader.scale("embed_tokens", embedding_);
  int64_t size = embedding_.size(1);
  input_proj_ = reader.matrix("stack.input_proj", size);
  size = source_size_ = input_proj_ ? input_proj_->out() : size;
  for (int64_t i = 0; reader.has("stack.layers." + std::to_string(i) + ".out_proj.weight"); ++i) {
    Layer layer = read_layer(reader, "stack.layers." + std::to_string(i), size, options);
    layer.narrow_cache = embedding_.scalar_type() != at::kFloat;
    if (layer.kv_proj) {
      layer.index = attending_++;
      slot_bytes_ = layer.kv_proj->out() * (layer.narrow_cache ? 2 : 4);
    }
    size = layer.size;
    layers_.push_back(std::move(layer));
  }
  TORCH_CHECK_VALUE(!layers_.empty(), "decoder: there are no layers");
  feature_proj_ = reader.matrix("feature_proj", size);
  size = feature_proj_ ? feature_proj_->out() : size;
  const bool tied = !reader.has("output_projection.weight");
  output_projection_ = reader.matrix(tied ? "embed_tokens" : "output_projection", size);
  Reader::check_sizes("output_projection", output_projection_->out() == embedding_.size(0));
  if (reader.has("output_projection.bias")) {
    output_bias_ = reader.floats("output_projection.bias", {embedding_.size(0)});
  }
  reader.finish();
  for (auto layer = layers_.rbegin(); layer != layers_.rend(); ++layer) {
    if (layer->kv_proj) {
      layer->aligns = true;
      break;
    }
  }
}

KeysValues Decoder::cache(int64_t source) const {
  return {attending_, slot_bytes_, source};
}

void Decoder::begin(const std::vector<Source>& sources, DecodingState& state) const {
  for (const Layer& layer : layers_) {
    layer.begin(sources, state.workspace);
  }
}

void Decoder::embed(const std::vector<Row>& rows, float* x) const {
  const int64_t size = embedding_.size(1);
  const auto copy = [&](auto type) {
    using T = decltype(type);
    for (size_t r = 0; r < rows.size(); ++r) {
      const int64_t token = rows[r].token;
      const auto* from = static_cast<const T*>(embedding_.data_ptr()) + token * size;
      const float scale = embedding_scale_.defined()
                              ? embed_scale_ * data<float>(embedding_scale_)[token]
                              : embed_scale_;
      for (int64_t i = 0; i < size; ++i) {
        x[r * size + i] = float(from[i]) * scale;
      }
    }
  };
  switch (embedding_.scalar_type()) {
    case at::kFloat:
      return copy(float());
    case at::kBFloat16:
      return copy(c10::BFloat16());
    default:
      return copy(int8_t());
  }
}

float* Decoder::step(const std::vector<Row>& rows, DecodingState& state) const {
  const int64_t R = rows.size();
  Workspace& w = state.workspace;
  embed(rows, room(w.x, R * embedding_.size(1)));
  if (input_proj_) {
    input_proj_->pack_rows(w.x.data(), R, w.packed);
    input_proj_->product(w.packed, R, room(w.h, R * input_proj_->out()));
    w.x.swap(w.h);
  }
  state.layers.resize(layers_.size());
  for (size_t i = 0; i < layers_.size(); ++i) {
    layers_[i].step(rows, w.x.data(), state.layers[i], w);
    w.x.swap(w.h);
  }
  if (feature_proj_) {
    feature_proj_->pack_rows(w.x.data(), R, w.packed);
    feature_proj_->product(w.packed, R, room(w.h, R * feature_proj_->out()));
    w.x.swap(w.h);
  }
  float* logits = room(w.logits, R * vocabulary());
  output_projection_->pack_rows(w.x.data(), R, w.packed);
  output_projection_->product(w.packed, R, logits);
  if (output_bias_.defined()) {
    const float* bias = data<float>(output_bias_);
    for (int64_t r = 0; r < R; ++r) {
      float* row = logits + r * vocabulary();
      std::transform(row, row + vocabulary(), bias, row, std::plus<float>());
    }
  }
  return logits;
}

namespace {

// Logits (N, T, vocabulary) of the tokens after each of `tokens` (N, T); source (tokens, D), the
// sentences' in a row, of `lengths` (N).
}  // namespace

Tensor decoder_logits(
    const Decoder& decoder, const Tensor& source, const Tensor& lengths, const Tensor& tokens) {
  const int64_t N = tokens.size(0), T = tokens.size(1), V = decoder.vocabulary();
  const Tensor x = source.contiguous(), ids = tokens.contiguous();
  DecodingState state;
  std::vector<KeysValues> caches;
  std::vector<Source> sources;
  std::vector<std::vector<int32_t>> before(N);
  caches.reserve(N);
  const float* next = data<float>(x);
  for (int64_t n = 0; n < N; ++n) {
    const int64_t length = data<int64_t>(lengths)[n];
    caches.push_back(decoder.cache(length));
    sources.push_back({&caches.back(), next});
    next += length * decoder.source_size();
  }
  decoder.begin(sources, state);
  const Tensor logits = empty({N, T, V}, at::kFloat);
  std::vector<Row> rows(N);
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t n = 0; n < N; ++n) {
      if (caches[n].full()) {
        caches[n].recycle(before[n]);
      }
      rows[n] = {
          &caches[n], t == 0 ? -1 : n, data<int64_t>(ids)[n * T + t], caches[n].take(), &before[n]};
    }
    const float* scores = decoder.step(rows, state);
    for (int64_t n = 0; n < N; ++n) {
      std::copy_n(scores + n * V, V, data<float>(logits) + (n * T + t) * V);
      before[n].push_back(rows[n].slot);
      if (decoder.window() >= 0 && int64_t(before[n].size()) > decoder.window()) {
        before[n].erase(before[n].begin());
      }
    }
  }
  return logits;
}

}  // namespace sru
