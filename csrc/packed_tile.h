// The product of a panel by one kernel: packed_kernels.cpp includes this in a namespace of each,
// where SRU_TARGET names the instructions, and Isa says
//   kLanes, kSums      lanes of a vector, a divisor of 16; sums that fit into registers
//   Weight, Input, Sum
//   load(words), broadcast(word), begin(start), add(sum, weight, input)
//   finish(sum, x_scale, scale, y)
//   pack_row(x, in, words, scale, start)

// Rows [row, row + R) times lanes [lane, lane + kLanes) of V blocks. While few rows pass, memory is
// the limit: the next blocks are fetched ahead.
template <int R, int V>
SRU_TARGET void tile(const PanelProduct& a, int64_t row, int64_t lane) {
  Isa::Sum sums[R][V];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 6
    for (int v = 0; v < V; ++v) {
      sums[r][v] = Isa::begin(a.x_start ? a.x_start[row + r] : 0);
    }
  }
  const int64_t stride = a.words * kBlock;
  const uint32_t* weight = a.weight + lane;
  const uint32_t* x = a.x + row * a.words;
  for (int64_t k = 0; k < a.words; ++k, weight += kBlock) {
    Isa::Weight w[V];
#pragma GCC unroll 6
    for (int v = 0; v < V; ++v) {
      w[v] = Isa::load(weight + v * stride);
      __builtin_prefetch(weight + (V + v) * stride, 0, 2);
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const Isa::Input input = Isa::broadcast(x[r * a.words + k]);
#pragma GCC unroll 6
      for (int v = 0; v < V; ++v) {
        sums[r][v] = Isa::add(sums[r][v], w[v], input);
      }
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 6
    for (int v = 0; v < V; ++v) {
      const int64_t output = v * kBlock + lane;
      Isa::finish(
          sums[r][v], a.x_scale ? a.x_scale[row + r] : 1, a.scale ? a.scale + output : nullptr,
          a.y + (row + r) * a.y_stride + output);
    }
  }
}

template <int R, int V>
SRU_TARGET void rows_of(const PanelProduct& a, int64_t row, int64_t rows, int64_t lane) {
  if constexpr (R > 1) {
    if (rows < R) {
      return rows_of<R - 1, V>(a, row, rows, lane);
    }
  }
  tile<R, V>(a, row, lane);
}

// Rows are shared out evenly among as few tiles as hold them.
template <int V>
SRU_TARGET void panel(const PanelProduct& a) {
  constexpr int kRows = std::min(6, Isa::kSums / V);
  const int64_t tiles = (a.rows + kRows - 1) / kRows;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t row = a.rows * i / tiles, end = a.rows * (i + 1) / tiles;
    for (int64_t lane = 0; lane < kBlock; lane += Isa::kLanes) {
      rows_of<kRows, V>(a, row, end - row, lane);
    }
  }
}

SRU_TARGET void multiply(const PanelProduct& a) {
  switch (a.blocks) {
    case 1:
      return panel<1>(a);
    case 2:
      return panel<2>(a);
    case 3:
      return panel<3>(a);
    case 4:
      return panel<4>(a);
  }
}

SRU_TARGET void pack_row(
    const float* x, int64_t in, uint32_t* words, float* scale, int32_t* start) {
  Isa::pack_row(x, in, words, scale, start);
}
