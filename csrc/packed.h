// Matrices packed for inference: y = x W^T with the outputs in the lanes of vectors.
//
// W (out, in) lies in blocks of 16 outputs, each (words, 16). A word has 32 bits: one float32, two
// bfloat16 or four int8 that follow each other in the row of an output; int8 are shifted by 128, as
// dot products of bytes want one side unsigned. The layout is the same for every instruction set.
#pragma once

#include <string>
#include <vector>

#include "tensor.h"

namespace sru {

constexpr int64_t kBlock = 16;     // outputs
constexpr int64_t kMaxBlocks = 4;  // multiplied together

enum class Precision { kFloat32, kBFloat16, kInt8 };

// At most kMaxBlocks blocks times some rows.
struct PanelProduct {
  const uint32_t* weight;  // (blocks, words, 16)
  const float* scale;      // (blocks * 16) with int8, else null
  int64_t blocks, words;
  const uint32_t* x;       // (rows, words)
  const float* x_scale;    // (rows) with int8, else null: of a row's integers
  const int32_t* x_start;  // (rows) with int8, else null: what its sums begin with
  int64_t rows;
  float* y;  // (rows, blocks * 16), y_stride apart
  int64_t y_stride;
};

// How one instruction set handles one precision.
struct Kernel {
  const char* isa;
  Precision precision;
  bool (*supported)();
  void (*multiply)(const PanelProduct& product);
  // x: (in); words: room for as many as in takes.
  void (*pack_row)(const float* x, int64_t in, uint32_t* words, float* scale, int32_t* start);
};

// All kernels of this build, for each precision the best first.
const std::vector<Kernel>& kernels();

// Rows of x as a packed matrix reads them; kept from call to call, it saves allocations.
struct PackedRows {
  const uint32_t* words = nullptr;  // (rows, words of a row)
  std::vector<uint32_t> buffer;
  std::vector<float> scale;
  std::vector<int32_t> start;
};

class PackedMatrix {
 public:
  // weight: (out, in), float32, bfloat16, or int8 from -127 to 127 with scale (out), what an
  // output's integers are multiplied with. isa: the name of a kernel, or "" for the best.
  PackedMatrix(const Tensor& weight, const OptionalTensor& scale, const std::string& isa);

  int64_t in() const { return in_; }
  int64_t out() const { return out_; }

  // x: (rows, in), to stay as it is while `packed` is used.
  void pack_rows(const float* x, int64_t rows, PackedRows& packed) const;

  // Rows [row, row + rows) times blocks [block, block + blocks) into y (rows, blocks * 16).
  void multiply(
      const PackedRows& x, int64_t row, int64_t rows, int64_t block, int64_t blocks, float* y,
      int64_t y_stride) const;

  // y (rows, out) = x W^T, by all threads.
  void product(const PackedRows& x, int64_t rows, float* y) const;

 private:
  int64_t in_, out_, words_;
  Kernel kernel_;
  Tensor weight_;  // (blocks, words_, 16)
  Tensor scale_;   // (blocks * 16), int8 only
};

}  // namespace sru
