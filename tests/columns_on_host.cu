// Runs the device code of the CUDA kernels on the host, one thread's columns after another, for
// machines without a GPU.
#include "../csrc/recurrence_cuda_backward.cu"
#include "../csrc/recurrence_cuda_forward.cu"

namespace {

// sizes: L, B, D, k, bidirectional. tensors: u, x, weight_c, bias, c0, pad, mask_c, h, c_last, c,
// grad_h, grad_c_last, grad_u, grad_x, grad_gates, grad_c0, grad_mask_c; null: absent.
template <typename T, int V>
void run(const int64_t* sizes, double scale, void* const* tensors) {
  using S = sru::State<T>;
  const auto io = [&](int i) { return static_cast<T*>(tensors[i]); };
  const auto state = [&](int i) { return static_cast<S*>(tensors[i]); };
  const sru::Inputs<T> in{sizes[0],      sizes[1], sizes[2], int(sizes[3]),
                          sizes[4] != 0, S(scale), io(0),    io(1),
                          state(2),      state(3), state(4), static_cast<bool*>(tensors[5]),
                          state(6)};
  const sru::Forward<T> forward{in, io(7), state(8), state(9)};
  const sru::Backward<T> backward{in,     state(9),  io(10),    state(11), io(12),
                                  io(13), state(14), state(15), state(16)};
  for (int64_t index = 0; index < in.batch * (in.width / V); ++index) {
    sru::ForwardStage<T, V> forward_ring[sru::kStages];
    sru::forward_columns<T, V>(forward, index, forward_ring, index % sru::kThreads);
    sru::BackwardStage<T, V> backward_ring[sru::kStages];
    sru::backward_columns<T, V>(backward, index, backward_ring, index % sru::kThreads);
  }
}

}  // namespace

extern "C" {
void run_float32(const int64_t* sizes, double scale, void* const* tensors) {
  run<float, 1>(sizes, scale, tensors);
}
void run_float64(const int64_t* sizes, double scale, void* const* tensors) {
  run<double, 1>(sizes, scale, tensors);
}
void run_bfloat16(const int64_t* sizes, double scale, void* const* tensors) {
  run<__nv_bfloat16, 1>(sizes, scale, tensors);
}
void run_bfloat16_pairs(const int64_t* sizes, double scale, void* const* tensors) {
  run<__nv_bfloat16, 2>(sizes, scale, tensors);
}
void run_float16_pairs(const int64_t* sizes, double scale, void* const* tensors) {
  run<__half, 2>(sizes, scale, tensors);
}
}
