// Packing, the product by all threads, and their operators.
#include "packed.h"

#include <algorithm>
#include <array>

#include <ATen/Parallel.h>

#include "operators.h"

namespace sru {
namespace {

constexpr int64_t kMostInputs = 1 << 16;      // sums of int8 products fit into 32 bits
constexpr int64_t kRowsTogether = 48;         // what a panel is multiplied with at a time
constexpr int64_t kShare = int64_t(1) << 15;  // least weights, times rows, per thread
constexpr int64_t kPackShare = int64_t(1) << 14;

int64_t divide(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

Precision precision_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return Precision::kFloat32;
    case at::kBFloat16:
      return Precision::kBFloat16;
    case at::kChar:
      return Precision::kInt8;
    default:
      TORCH_CHECK_TYPE(false, "packed: weight is ", dtype, ", expected float32, bfloat16 or int8");
  }
}

Kernel choose_kernel(Precision precision, const std::string& isa) {
  for (const Kernel& kernel : kernels()) {
    if (kernel.precision == precision && kernel.supported() && (isa.empty() || isa == kernel.isa)) {
      return kernel;
    }
  }
  TORCH_CHECK_VALUE(false, "packed: this CPU has no kernel ", isa, "; see packed_isas");
}

// The bytes of `weight` (out, in), in blocks.
Tensor in_blocks(const Tensor& weight, int64_t words) {
  const int64_t out = weight.size(0), row_bytes = weight.size(1) * weight.element_size();
  const bool shifted = weight.scalar_type() == at::kChar;
  const Tensor packed = zeros({divide(out, kBlock), words, kBlock}, at::kInt);
  const auto* from = static_cast<const uint8_t*>(weight.data_ptr());
  auto* to = static_cast<uint8_t*>(packed.data_ptr());
  for (int64_t output = 0; output < out; ++output) {
    for (int64_t byte = 0; byte < row_bytes; ++byte) {
      const int64_t word = (output / kBlock * words + byte / 4) * kBlock + output % kBlock;
      to[word * 4 + byte % 4] = from[output * row_bytes + byte] ^ (shifted ? 0x80 : 0);
    }
  }
  return packed;
}

}  // namespace

PackedMatrix::PackedMatrix(
    const Tensor& weight, const OptionalTensor& scale, const std::string& isa)
    : kernel_(choose_kernel(precision_of(weight.scalar_type()), isa)) {
  TORCH_CHECK_VALUE(
      weight.dim() == 2 && weight.size(1) <= kMostInputs, "packed: weight has shape ",
      weight.sizes(), ", expected (out, in) with at most ", kMostInputs, " inputs");
  out_ = weight.size(0);
  in_ = weight.size(1);
  words_ = divide(in_ * weight.element_size(), 4);
  const Tensor dense = weight.contiguous();
  TORCH_CHECK_VALUE(
      scale.has_value() == (weight.scalar_type() == at::kChar),
      "packed: int8 weights need a scale, others have none");
  weight_ = in_blocks(dense, words_);
  if (scale) {
    TORCH_CHECK_VALUE(
        scale->sizes() == at::IntArrayRef{out_} && scale->scalar_type() == at::kFloat,
        "packed: scale is ", scale->scalar_type(), " of shape ", scale->sizes(),
        ", expected float32 (", out_, ")");
    TORCH_CHECK_VALUE(
        weight.numel() == 0 || weight.min().item<int64_t>() >= -127,
        "packed: int8 weights must be at least -127");
    scale_ = zeros({weight_.size(0) * kBlock}, at::kFloat);
    scale_.slice(0, 0, out_).copy_(*scale);
  }
}

void PackedMatrix::pack_rows(const float* x, int64_t rows, PackedRows& packed) const {
  if (kernel_.precision == Precision::kFloat32) {
    packed.words = reinterpret_cast<const uint32_t*>(x);
    return;
  }
  packed.buffer.resize(rows * words_);
  packed.scale.resize(rows);
  packed.start.resize(rows);
  packed.words = packed.buffer.data();
  const int64_t grain = std::max<int64_t>(1, kPackShare / std::max<int64_t>(1, in_));
  at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      kernel_.pack_row(
          x + row * in_, in_, packed.buffer.data() + row * words_, &packed.scale[row],
          &packed.start[row]);
    }
  });
}

void PackedMatrix::multiply(
    const PackedRows& x, int64_t row, int64_t rows, int64_t block, int64_t blocks, float* y,
    int64_t y_stride) const {
  const bool quantised = kernel_.precision == Precision::kInt8;
  kernel_.multiply(PanelProduct{
      static_cast<const uint32_t*>(weight_.data_ptr()) + block * words_ * kBlock,
      quantised ? static_cast<const float*>(scale_.data_ptr()) + block * kBlock : nullptr, blocks,
      words_, x.words + row * words_, quantised ? x.scale.data() + row : nullptr,
      quantised ? x.start.data() + row : nullptr, rows, y, y_stride});
}

void PackedMatrix::product(const PackedRows& x, int64_t rows, float* y) const {
  const int64_t blocks = weight_.size(0), threads = at::get_num_threads();
  const int64_t together = std::clamp<int64_t>(blocks / threads, 1, kMaxBlocks);
  const int64_t panels = divide(blocks, together);
  const int64_t work = std::max<int64_t>(1, rows * in_ * together * kBlock);
  at::parallel_for(0, panels, std::max<int64_t>(1, kShare / work), [&](int64_t begin, int64_t end) {
    std::array<float, kRowsTogether * kMaxBlocks * kBlock> buffer;
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t block = panel * together, first = block * kBlock;
      const int64_t count = std::min(together, blocks - block);
      const int64_t width = std::min(count * kBlock, out_ - first);
      if (width == count * kBlock) {
        multiply(x, 0, rows, block, count, y + first, out_);
        continue;
      }
      for (int64_t row = 0; row < rows; row += kRowsTogether) {
        const int64_t some = std::min(kRowsTogether, rows - row);
        multiply(x, row, some, block, count, buffer.data(), count * kBlock);
        for (int64_t r = 0; r < some; ++r) {
          std::copy_n(buffer.data() + r * count * kBlock, width, y + (row + r) * out_ + first);
        }
      }
    }
  });
}

// The names of the kernels that this CPU runs, the best first.
std::vector<std::string> packed_isas(at::ScalarType dtype) {
  std::vector<std::string> names;
  for (const Kernel& kernel : kernels()) {
    if (kernel.precision == precision_of(dtype) && kernel.supported()) {
      names.emplace_back(kernel.isa);
    }
  }
  return names;
}

Tensor packed_product(const PackedMatrix& matrix, const Tensor& x, const OptionalTensor& bias) {
  TORCH_CHECK_VALUE(
      x.dim() == 2 && x.size(1) == matrix.in() &&
          (!bias || bias->sizes() == at::IntArrayRef{matrix.out()}),
      "packed_product: x and bias have shapes ", x.sizes(), " and ",
      bias ? bias->sizes() : at::IntArrayRef{}, ", expected (rows, ", matrix.in(), ") and (",
      matrix.out(), ")");
  TORCH_CHECK_TYPE(
      x.scalar_type() == at::kFloat && (!bias || bias->scalar_type() == at::kFloat),
      "packed_product: x and bias must be float32");
  const Tensor dense = x.contiguous(), y = empty({x.size(0), matrix.out()}, x.options());
  PackedRows rows;
  matrix.pack_rows(data<float>(dense), x.size(0), rows);
  matrix.product(rows, x.size(0), data<float>(y));
  return bias ? y.add_(*bias) : y;
}

}  // namespace sru
