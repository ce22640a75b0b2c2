// A decoder of SRU++ or SRU layers for inference: one token of many hypotheses at a time.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "keys_values.h"
#include "packed.h"

namespace sru {

using Weights = std::map<std::string, Tensor>;
using Options = std::map<std::string, double>;

// A hypothesis and the token it reads.
struct Row {
  KeysValues* cache;  // of its sentence
  int64_t parent;     // its row in the step before, -1 at the first token
  int64_t token;
  int32_t slot;                        // for this token
  const std::vector<int32_t>* before;  // slots of the tokens before
  float* alignment = nullptr;  // (source): weights of the last attending layer, heads averaged
};

// A source to attend to.
struct Source {
  KeysValues* cache;
  const float* x;  // (cache->source(), size of the layers' inputs)
};

struct LayerNorm {
  Tensor weight, bias;
  float eps = 0;

  explicit operator bool() const { return weight.defined(); }
  void run(const float* x, int64_t rows, float* y) const;  // y may be x
};

using Matrix = std::shared_ptr<PackedMatrix>;

// A buffer of at least this size; it never shrinks.
inline float* room(std::vector<float>& buffer, int64_t size) {
  if (int64_t(buffer.size()) < size) {
    buffer.resize(size);
  }
  return buffer.data();
}

// The states c of a layer before and after a step, (groups of 16 channels, rows, 16).
struct Cells {
  std::vector<float> before, now;
  int64_t rows_before = 0, rows = 0;

  void advance(int64_t next_rows, int64_t size) {
    before.swap(now);
    rows_before = rows;
    rows = next_rows;
    room(now, rows * size);
  }
};

// What layers read and write within a step.
struct Workspace {
  std::vector<float> x, z, q, keys_values, y, h, logits;
  PackedRows packed;
};

class Layer {
 public:
  LayerNorm pre_norm, attn_norm, post_norm;
  Matrix q_proj, kv_proj;  // null where the layer has none
  Matrix out_proj;         // its outputs in groups of 16 channels: forget, reset, candidate, ...
  Tensor gates;            // (4, groups * 16): v_f, v_r, b_f, b_r
  float alpha = 0, scale = 1;
  int64_t size = 0, blocks = 3, heads = 1, index = 0;
  bool highway = true, aligns = false;
  bool narrow_cache = false;  // keys and values in bfloat16 rather than float32

  int64_t cell_size() const { return gates.size(1); }

  // Keys and values of the sources.
  void begin(const std::vector<Source>& sources, Workspace& w) const;

  // x (rows, in) -> w.h (rows, size).
  void step(const std::vector<Row>& rows, const float* x, Cells& cells, Workspace& w) const;

 private:
  const float* query(const float* x, int64_t rows, Workspace& w) const;
  void store_slot(const float* keys_values, KeysValues& cache, int64_t slot) const;
  void attend(const std::vector<Row>& rows, Workspace& w) const;
  void recur(
      const std::vector<Row>& rows, const float* x, const float* y, Cells& cells,
      Workspace& w) const;
};

// What hypotheses carry from one step to the next besides keys and values.
struct DecodingState {
  std::vector<Cells> layers;
  Workspace workspace;
};

class Decoder {
 public:
  // weights: the decoder's state dict; int8 matrices come with their scale, as name.scale beside
  // name.weight, an output that is tied to the embedding is left out. options: heads, highway,
  // scale (of the highway input), embed_scale, norm_eps, window (-1: none).
  // isa: of the packed matrices, "" for the best.
  Decoder(const Weights& weights, const Options& options, const std::string& isa);

  int64_t vocabulary() const { return output_projection_->out(); }
  int64_t source_size() const { return source_size_; }
  int64_t window() const { return window_; }
  KeysValues cache(int64_t source) const;

  // Read the sources, for the first step of their hypotheses.
  void begin(const std::vector<Source>& sources, DecodingState& state) const;

  // Read a token of each row: the logits of the next one (rows, vocabulary), in the state.
  float* step(const std::vector<Row>& rows, DecodingState& state) const;

 private:
  void embed(const std::vector<Row>& rows, float* x) const;

  Tensor embedding_, embedding_scale_;
  Matrix input_proj_, feature_proj_, output_projection_;
  Tensor output_bias_;
  std::vector<Layer> layers_;
  float embed_scale_;
  int64_t attending_ = 0, slot_bytes_ = 0;
  int64_t source_size_, window_;
};

}  // namespace sru
