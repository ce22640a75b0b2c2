// The linear map of a few rows, a step of decoding: it is as fast as the weights are read. Each is
// read once, by the thread that owns its outputs, and multiplied with up to kRows rows.
#include <algorithm>

#include <ATen/Parallel.h>

#include "lanes.h"
#include "operators.h"

namespace sru {
namespace {

constexpr int64_t kRows = 4;                  // of x
constexpr int64_t kOutputs = 4;               // rows of W at a time
constexpr int64_t kShare = int64_t(1) << 15;  // least weights per thread

// y = x W^T + b
template <typename T>
struct FewRows {
  const T* x;       // (rows, in)
  const T* weight;  // (out, in)
  const T* bias;    // (out), or null
  T* y;             // (rows, out)
  int64_t rows, in, out;
};

// Rows [row, row + R) times outputs [first, first + N).
template <int R, int N, typename T>
SRU_INLINE void block(const FewRows<T>& a, int64_t row, int64_t first) {
  using S = State<T>;
  using Lanes = typename Vector<S>::Lanes;
  constexpr int64_t kLanes = sizeof(Lanes) / sizeof(S);
  const T* x = a.x + row * a.in;
  const T* weight = a.weight + first * a.in;
  Lanes sums[R][N] = {};
  int64_t k = 0;
  for (; k + kLanes <= a.in; k += kLanes) {
    Lanes w[N];
    for (int n = 0; n < N; ++n) {
      load_lanes(weight + n * a.in + k, w[n]);
    }
    for (int r = 0; r < R; ++r) {
      Lanes lanes;
      load_lanes(x + r * a.in + k, lanes);
      for (int n = 0; n < N; ++n) {
        sums[r][n] += lanes * w[n];
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < N; ++n) {
      S sum = a.bias ? load(a.bias + first + n) : S(0);
      for (int64_t i = 0; i < kLanes; ++i) {
        sum += sums[r][n][i];
      }
      for (int64_t i = k; i < a.in; ++i) {
        sum += load(x + r * a.in + i) * load(weight + n * a.in + i);
      }
      store(a.y + (row + r) * a.out + first + n, sum);
    }
  }
}

template <typename T>
SRU_INLINE void all_rows(const FewRows<T>& a, int64_t first) {
  int64_t row = 0;
  for (; row + kRows <= a.rows; row += kRows) {
    block<kRows, kOutputs>(a, row, first);
  }
  switch (a.rows - row) {
    case 3:
      return block<3, kOutputs>(a, row, first);
    case 2:
      return block<2, kOutputs>(a, row, first);
    case 1:
      return block<1, kOutputs>(a, row, first);
  }
}

// The outputs [begin, end).
template <typename T>
struct Outputs {
  const FewRows<T>& args;
  int64_t begin, end;

  SRU_INLINE void operator()() const {
    int64_t first = begin;
    for (; first + kOutputs <= end; first += kOutputs) {
      all_rows(args, first);
    }
    for (; first < end; ++first) {
      for (int64_t row = 0; row < args.rows; ++row) {
        block<1, 1>(args, row, first);
      }
    }
  }
};

template <typename T>
void run(const FewRows<T>& args) {
  const int64_t grain = std::max<int64_t>(kOutputs, kShare / std::max<int64_t>(args.in, 1));
  at::parallel_for(0, args.out, grain, [&](int64_t begin, int64_t end) {
    run_best(Outputs<T>{args, begin, end});
  });
}

}  // namespace

Tensor few_rows(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  TORCH_CHECK_VALUE(
      x.dim() == 2 && weight.dim() == 2 && x.size(1) == weight.size(1) &&
          (!bias || bias->sizes() == at::IntArrayRef{weight.size(0)}),
      "few_rows: x, weight and bias have shapes ", x.sizes(), ", ", weight.sizes(), " and ",
      bias ? bias->sizes() : at::IntArrayRef{}, ", expected (R, in), (out, in) and (out)");
  TORCH_CHECK_TYPE(
      weight.scalar_type() == x.scalar_type() && (!bias || bias->scalar_type() == x.scalar_type()),
      "few_rows: x is ", x.scalar_type(), ", weight ", weight.scalar_type(), "; they must agree");
  const Tensor rows = x.contiguous(), w = weight.contiguous();
  const Tensor b = bias ? bias->contiguous() : Tensor();
  const Tensor y = empty({x.size(0), weight.size(0)}, x.options());
  dispatch("few_rows", x, [&](auto type) {
    using T = decltype(type);
    run(FewRows<T>{
        data<T>(rows), data<T>(w), bias ? data<T>(b) : nullptr, data<T>(y), x.size(0), x.size(1),
        weight.size(0)});
  });
  return y;
}

}  // namespace sru
