// Arguments of the dropout kernel.
#pragma once

#include <cstdint>

namespace sru {

template <typename T>
struct Dropout {
  const T* in;
  T* out;
  int64_t size;
  double p;       // of zero; below 1
  uint64_t seed;  // equal seeds, equal masks
};

template <typename T>
void dropout_cpu(const Dropout<T>& args);

}  // namespace sru
