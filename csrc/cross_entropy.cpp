// Losses of rows of logits, without a copy of them all: a row is widened to the type of its sums,
// read from the cache as often as it has to be, and its gradient is worked out anew from its
// partition function.
#include <algorithm>
#include <cmath>
#include <tuple>
#include <type_traits>
#include <vector>

#include <ATen/Parallel.h>

#include "lanes.h"
#include "operators.h"

namespace sru {
namespace {

constexpr int64_t kShare = int64_t(1) << 15;  // least logits per thread

SRU_INLINE float exp_negative(float x) {
  return exp_bounded(x < -87.0f ? -87.0f : x);
}
SRU_INLINE double exp_negative(double x) {
  return exp_bounded(x < -708.0 ? -708.0 : x);
}

// log(sum of exp(x)) in two parts, whose sum would lose digits where logits are large.
template <typename S>
struct Partition {
  S most, log_sum;

  SRU_INLINE S log_probability(S x) const { return (x - most) - log_sum; }
};

template <typename S>
SRU_INLINE Partition<S> partition(const S* x, int64_t size) {
  const S most = greatest(x, size);
  const S sum = sum_over<S>(size, [&](int64_t i) { return exp_negative(x[i] - most); });
  return {most, std::log(sum)};
}

// A row in the type of its sums: itself, or a copy in `room`.
template <typename T, typename S>
SRU_INLINE const S* widened(const T* x, int64_t size, S* room) {
  if constexpr (std::is_same_v<T, S>) {
    return x;
  } else {
    for (int64_t i = 0; i < size; ++i) {
      room[i] = load(x + i);
    }
    return room;
  }
}

template <typename T>
struct CrossEntropy {
  using S = State<T>;

  const T* logits;        // (rows, size)
  const int64_t* target;  // (rows)
  Partition<S>* parts;    // (rows), as the two below
  S *nll, *mean_nll;
  int64_t size, ignored;

  SRU_INLINE void operator()(int64_t row, S* room) const {
    if (target[row] == ignored) {
      nll[row] = mean_nll[row] = 0;
      parts[row] = {};
      return;
    }
    const S* x = widened(logits + row * size, size, room);
    const Partition<S> part = parts[row] = partition(x, size);
    nll[row] = -part.log_probability(x[target[row]]);
    const S sum = sum_over<S>(size, [&](int64_t i) { return part.log_probability(x[i]); });
    mean_nll[row] = -sum / S(size);
  }
};

template <typename T>
struct CrossEntropyGradient {
  using S = State<T>;

  CrossEntropy<T> forward;  // its parts are read
  const S *grad_nll, *grad_mean_nll;
  T* grad;

  SRU_INLINE void operator()(int64_t row, S* room) const {
    const int64_t size = forward.size, target = forward.target[row];
    T* out = grad + row * size;
    if (target == forward.ignored) {
      std::fill_n(out, size, T(0));
      return;
    }
    const S* x = widened(forward.logits + row * size, size, room);
    const Partition<S> part = forward.parts[row];
    const S both = grad_nll[row] + grad_mean_nll[row], uniform = grad_mean_nll[row] / S(size);
    const auto of = [&](int64_t i) {
      return both * exp_negative(part.log_probability(x[i])) - uniform;
    };
    for (int64_t i = 0; i < size; ++i) {
      store(out + i, of(i));
    }
    store(out + target, of(target) - grad_nll[row]);
  }
};

// KL(p || q) of the distributions that two rows of logits give.
template <typename T>
struct Divergence {
  using S = State<T>;

  const T *p, *q;                  // (rows, size)
  Partition<S>*parts_p, *parts_q;  // (rows), as the one below
  S* kl;
  int64_t size;

  SRU_INLINE void operator()(int64_t row, S* room) const {
    const S* a = widened(p + row * size, size, room);
    const S* b = widened(q + row * size, size, room + size);
    const Partition<S> of_a = parts_p[row] = partition(a, size);
    const Partition<S> of_b = parts_q[row] = partition(b, size);
    kl[row] = sum_over<S>(size, [&](int64_t i) {
      const S log_p = of_a.log_probability(a[i]);
      return exp_negative(log_p) * (log_p - of_b.log_probability(b[i]));
    });
  }
};

template <typename T>
struct DivergenceGradient {
  using S = State<T>;

  Divergence<T> forward;  // its results are read
  const S* grad_kl;
  T *grad_p, *grad_q;

  SRU_INLINE void operator()(int64_t row, S* room) const {
    const int64_t size = forward.size, first = row * size;
    const S grad = grad_kl[row];
    T *out_p = grad_p + first, *out_q = grad_q + first;
    if (grad == 0) {
      std::fill_n(out_p, size, T(0));
      std::fill_n(out_q, size, T(0));
      return;
    }
    const S* p = widened(forward.p + first, size, room);
    const S* q = widened(forward.q + first, size, room + size);
    const Partition<S> of_p = forward.parts_p[row], of_q = forward.parts_q[row];
    const S kl = forward.kl[row];
    for (int64_t i = 0; i < size; ++i) {
      const S log_p = of_p.log_probability(p[i]), log_q = of_q.log_probability(q[i]);
      const S probability = exp_negative(log_p);
      store(out_p + i, grad * probability * (log_p - log_q - kl));
      store(out_q + i, grad * (exp_negative(log_q) - probability));
    }
  }
};

template <typename F>
struct Rows {
  const F& each;
  int64_t begin, end;
  typename F::S* room;

  SRU_INLINE void operator()() const {
    for (int64_t row = begin; row < end; ++row) {
      each(row, room);
    }
  }
};

template <typename F>
void for_rows(const Tensor& logits, const F& each) {
  const int64_t size = logits.size(1), grain = std::max<int64_t>(1, kShare / size);
  at::parallel_for(0, logits.size(0), grain, [&](int64_t begin, int64_t end) {
    std::vector<typename F::S> room(2 * size);
    run_best(Rows<F>{each, begin, end, room.data()});
  });
}

void check_logits(const char* name, const Tensor& logits) {
  TORCH_CHECK_VALUE(
      logits.dim() == 2 && logits.size(1) > 0, name, ": logits have shape ", logits.sizes(),
      ", expected (rows, vocabulary)");
}

Tensor check_target(const Tensor& logits, const Tensor& target, int64_t ignored) {
  check_logits("cross_entropy", logits);
  TORCH_CHECK_TYPE(
      target.scalar_type() == at::kLong, "cross_entropy: target is ", target.scalar_type(),
      ", expected int64");
  TORCH_CHECK_VALUE(
      target.sizes() == at::IntArrayRef{logits.size(0)}, "cross_entropy: target has shape ",
      target.sizes(), ", expected (", logits.size(0), ")");
  const Tensor dense = target.contiguous();
  const int64_t* t = data<int64_t>(dense);
  for (int64_t i = 0; i < dense.numel(); ++i) {
    TORCH_CHECK_INDEX(
        t[i] == ignored || (0 <= t[i] && t[i] < logits.size(1)), "cross_entropy: target ", t[i],
        " is outside a vocabulary of ", logits.size(1));
  }
  return dense;
}

// Of the type in which rows are summed up.
Tensor sums(const Tensor& logits, at::IntArrayRef sizes) {
  const bool wide = logits.scalar_type() == at::kDouble;
  return empty(sizes, logits.options().dtype(wide ? at::kDouble : at::kFloat));
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> cross_entropy(
    const Tensor& logits, const Tensor& target, int64_t ignored) {
  const Tensor x = logits.contiguous(), t = check_target(logits, target, ignored);
  const int64_t rows = x.size(0);
  const Tensor nll = sums(x, {rows}), mean_nll = sums(x, {rows}), parts = sums(x, {rows, 2});
  dispatch("cross_entropy", x, [&](auto type) {
    using T = decltype(type);
    using S = State<T>;
    for_rows(
        x, CrossEntropy<T>{
               data<T>(x), data<int64_t>(t), data<Partition<S>>(parts), data<S>(nll),
               data<S>(mean_nll), x.size(1), ignored});
  });
  return {nll, mean_nll, parts};
}

Tensor cross_entropy_backward(
    const Tensor& grad_nll, const Tensor& grad_mean_nll, const Tensor& logits, const Tensor& target,
    const Tensor& parts, int64_t ignored) {
  const Tensor x = logits.contiguous(), t = check_target(logits, target, ignored);
  const Tensor a = grad_nll.contiguous(), b = grad_mean_nll.contiguous();
  const Tensor grad = empty(x.sizes(), x.options());
  dispatch("cross_entropy", x, [&](auto type) {
    using T = decltype(type);
    using S = State<T>;
    const CrossEntropy<T> forward{data<T>(x), data<int64_t>(t), data<Partition<S>>(parts),
                                  nullptr,    nullptr,          x.size(1),
                                  ignored};
    for_rows(x, CrossEntropyGradient<T>{forward, data<S>(a), data<S>(b), data<T>(grad)});
  });
  return grad;
}

std::tuple<Tensor, Tensor, Tensor> divergence(const Tensor& p, const Tensor& q) {
  check_logits("divergence", p);
  TORCH_CHECK_VALUE(
      p.sizes() == q.sizes(), "divergence: p has shape ", p.sizes(), ", q ", q.sizes());
  TORCH_CHECK_TYPE(
      p.scalar_type() == q.scalar_type(), "divergence: p is ", p.scalar_type(), ", q ",
      q.scalar_type());
  const Tensor a = p.contiguous(), b = q.contiguous();
  const int64_t rows = a.size(0);
  const Tensor kl = sums(a, {rows}), parts_p = sums(a, {rows, 2}), parts_q = sums(a, {rows, 2});
  dispatch("divergence", a, [&](auto type) {
    using T = decltype(type);
    using S = State<T>;
    for_rows(
        a, Divergence<T>{
               data<T>(a), data<T>(b), data<Partition<S>>(parts_p), data<Partition<S>>(parts_q),
               data<S>(kl), a.size(1)});
  });
  return {kl, parts_p, parts_q};
}

std::tuple<Tensor, Tensor> divergence_backward(
    const Tensor& grad, const Tensor& p, const Tensor& q, const Tensor& kl, const Tensor& parts_p,
    const Tensor& parts_q) {
  const Tensor a = p.contiguous(), b = q.contiguous(), g = grad.contiguous();
  const Tensor grad_p = empty(a.sizes(), a.options()), grad_q = empty(b.sizes(), b.options());
  dispatch("divergence", a, [&](auto type) {
    using T = decltype(type);
    using S = State<T>;
    const Divergence<T> forward{
        data<T>(a),  data<T>(b), data<Partition<S>>(parts_p), data<Partition<S>>(parts_q),
        data<S>(kl), a.size(1)};
    for_rows(a, DivergenceGradient<T>{forward, data<S>(g), data<T>(grad_p), data<T>(grad_q)});
  });
  return {grad_p, grad_q};
}

}  // namespace sru
