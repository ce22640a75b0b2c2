// Runs the device code of the CUDA kernels on the host, the lanes of a warp in turn, for machines
// without a GPU.
#include <vector>

#include "../csrc/recurrence_cuda_backward.cu"
#include "../csrc/recurrence_cuda_forward.cu"

namespace {

template <typename Lane, typename Arguments>
void run_warps(const Arguments& args, unsigned warps) {
  for (unsigned warp = 0; warp < warps; ++warp) {
    alignas(16) static char ring[Lane::kRing];
    std::vector<Lane> lanes;
    for (int lane = 0; lane < sru::kLanes; ++lane) {
      lanes.emplace_back(args, warp, lane, ring);
    }
    sru::walk<sru::kLanes>(lanes.data(), static_cast<int>(args.length));
    for (const Lane& lane : lanes) {
      lane.finish();
    }
  }
}

template <typename T, int V, int Chunk, bool Padding>
void run_kernels(const sru::Forward<T>& forward, const sru::Backward<T>& backward) {
  const unsigned warps = sru::tiles<T, V>(forward);
  run_warps<sru::ForwardLane<T, V, Chunk, Padding>>(forward, warps);
  run_warps<sru::BackwardLane<T, V, Chunk, Padding>>(backward, warps);
}

// sizes: L, B, D, k, bidirectional. tensors: u, x, weight_c, bias, c0, pad, mask_c, h, c_last, c,
// grad_h, grad_c_last, grad_u, grad_x, grad_gates, grad_c0, grad_mask_c; null: absent.
template <typename T, int V, int Chunk>
void run(const int64_t* sizes, double scale, void* const* tensors) {
  using S = sru::State<T>;
  const auto io = [&](int i) { return static_cast<T*>(tensors[i]); };
  const auto state = [&](int i) { return static_cast<S*>(tensors[i]); };
  const sru::Inputs<T> in{sizes[0],      sizes[1], sizes[2], int(sizes[3]),
                          sizes[4] != 0, S(io(1) ? scale : 1), io(0), io(1),
                          state(2),      state(3), state(4), static_cast<bool*>(tensors[5]),
                          state(6)};
  const sru::Forward<T> forward{in, io(7), state(8), state(9)};
  const sru::Backward<T> backward{in,     state(9),  io(10),    state(11), io(12),
                                  io(13), state(14), state(15), state(16)};
  in.pad ? run_kernels<T, V, Chunk, true>(forward, backward)
         : run_kernels<T, V, Chunk, false>(forward, backward);
}

}  // namespace

extern "C" {
void run_float64(const int64_t* sizes, double scale, void* const* tensors) {
  run<double, 1, 8>(sizes, scale, tensors);
}
void run_float32(const int64_t* sizes, double scale, void* const* tensors) {
  run<float, 1, 16>(sizes, scale, tensors);
}
void run_float32_unaligned(const int64_t* sizes, double scale, void* const* tensors) {
  run<float, 1, 4>(sizes, scale, tensors);
}
void run_bfloat16(const int64_t* sizes, double scale, void* const* tensors) {
  run<__nv_bfloat16, 1, 16>(sizes, scale, tensors);
}
void run_bfloat16_pairs(const int64_t* sizes, double scale, void* const* tensors) {
  run<__nv_bfloat16, 2, 16>(sizes, scale, tensors);
}
void run_bfloat16_words(const int64_t* sizes, double scale, void* const* tensors) {
  run<__nv_bfloat16, 1, 4>(sizes, scale, tensors);
}
void run_bfloat16_unaligned(const int64_t* sizes, double scale, void* const* tensors) {
  run<__nv_bfloat16, 1, 2>(sizes, scale, tensors);
}
void run_float16_pairs(const int64_t* sizes, double scale, void* const* tensors) {
  run<__half, 2, 16>(sizes, scale, tensors);
}
}
