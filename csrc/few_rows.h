// Arguments of the linear map of a few rows.
#pragma once

#include <cstdint>

namespace sru {

// y = x W^T + b
template <typename T>
struct FewRows {
  const T* x;       // (rows, in)
  const T* weight;  // (out, in)
  const T* bias;    // (out), or null
  T* y;             // (rows, out)
  int64_t rows, in, out;
};

template <typename T>
void few_rows_cpu(const FewRows<T>& args);

}  // namespace sru
