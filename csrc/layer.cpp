// One step of a layer; SRUppLayer.step and SRULayer.forward, line by line.
#include <algorithm>
#include <array>
#include <cmath>

#include <ATen/Parallel.h>

#include "attend.h"
#include "decoder.h"
#include "lanes.h"

namespace sru {
namespace {

constexpr int64_t kAhead = 4;                 // rows fetched, as hardware does not see their stride
constexpr int64_t kRowsTogether = 24;         // multiplied with a group of channels at a time
constexpr int64_t kShare = int64_t(1) << 15;  // least multiplications worth a thread

int64_t share(int64_t work) {
  return std::max<int64_t>(1, kShare / std::max<int64_t>(1, work));
}

struct NormRow {
  const float *x, *weight, *bias;
  float* y;
  int64_t size;
  float eps;

  SRU_INLINE void operator()() const {
    const float mean = sum_over(size, [&](int64_t i) { return x[i]; }) / size;
    const float variance =
        sum_over(size, [&](int64_t i) { return (x[i] - mean) * (x[i] - mean); }) / size;
    const float factor = 1 / std::sqrt(variance + eps);
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) {
      y[i] = (x[i] - mean) * factor * weight[i] + bias[i];
    }
  }
};

// Keys and values into a slot.
template <typename T>
struct StoreSlot {
  const float* from;
  char* to;
  int64_t size;

  SRU_INLINE void operator()() const {
    auto* numbers = reinterpret_cast<T*>(to);
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) {
      store(numbers + i, from[i]);
    }
  }
};

// The attention of rows [begin, end) over keys and values of type T.
template <typename T>
struct AttendRows {
  const Layer& layer;
  const std::vector<Row>& rows;
  const float* q;
  float* y;
  int64_t size, begin, end;
  Attention<float>& attention;

  SRU_INLINE void operator()() const {
    const int64_t head_size = size / layer.heads;
    for (int64_t r = begin; r < end; ++r) {
      const Row& row = rows[r];
      if (r == begin || row.cache != rows[r - 1].cache) {
        prefetch_next(r);
      }
      const int64_t source = row.cache->source();
      attention.clear();
      for (int64_t slot = 0; slot < source; ++slot) {
        attention.see_if(true, slot);
      }
      for (const int32_t slot : *row.before) {
        attention.see_if(true, slot);
      }
      attention.see_if(true, row.slot);
      attention.complete();
      for (int64_t first = 0; first < size; first += head_size) {
        attention.attend(
            q + r * size + first, reinterpret_cast<const T*>(row.cache->at(layer.index, 0)) + first,
            size, 2 * size, head_size, layer.alpha, y + r * size + first);
        for (int64_t slot = 0; layer.aligns && row.alignment && slot < source; ++slot) {
          row.alignment[slot] += attention.weights()[slot] / layer.heads;
        }
      }
    }
  }

  // What the next sentence's first hypothesis will read, the others of which see almost the same.
  SRU_INLINE void prefetch_next(int64_t r) const {
    const KeysValues* own = rows[r].cache;
    while (r < end && rows[r].cache == own) {
      ++r;
    }
    if (r < end) {
      for (int64_t slot = 0; slot < rows[r].cache->source(); ++slot) {
        prefetch_slot(rows[r], slot);
      }
      for (const int32_t slot : *rows[r].before) {
        prefetch_slot(rows[r], slot);
      }
    }
  }

  SRU_INLINE void prefetch_slot(const Row& row, int64_t slot) const {
    const char* from = row.cache->at(layer.index, slot);
    for (int64_t byte = 0; byte < int64_t(2 * size * sizeof(T)); byte += 64) {
      __builtin_prefetch(from + byte, 0, 2);
    }
  }
};

// n numbers, at most 16 and mostly so many.
SRU_INLINE void copy_block(const float* from, int64_t n, float* to) {
  if (n == kBlock) {
    memcpy(to, from, kBlock * sizeof(float));
  } else {
    std::copy_n(from, n, to);
  }
}

// The recurrence of some rows in a group of 16 channels.
struct RecurRows {
  const Layer& layer;
  const Row* rows;
  const float* u;             // (count, blocks * 16)
  const float* x;             // (rows, size): highway input
  const float* cells_before;  // (rows before, 16)
  float* cells;               // (rows, 16)
  float* h;                   // (rows, size)
  int64_t first, count;       // row, number of rows
  int64_t channel;

  SRU_INLINE void operator()() const {
    static constexpr float kZeros[kBlock] = {};
    const int64_t size = layer.size, cell_size = layer.cell_size();
    const int64_t n = std::min(kBlock, size - channel);
    const float scale = layer.blocks == 4 ? 1 : layer.scale;
    const auto* gates = static_cast<const float*>(layer.gates.data_ptr()) + channel;
    const float *v_f = gates, *v_r = v_f + cell_size, *b_f = v_r + cell_size,
                *b_r = b_f + cell_size;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t r = first + i, parent = rows[r].parent;
      const float* prev = parent < 0 ? kZeros : cells_before + parent * kBlock;
      __builtin_prefetch(x + (r + kAhead) * size + channel);
      __builtin_prefetch(h + (r + kAhead) * size + channel, 1);
      const float *u0 = u + i * layer.blocks * kBlock, *u1 = u0 + kBlock, *u2 = u1 + kBlock;
      float s[kBlock] = {}, y[kBlock];
      if (layer.blocks == 4) {
        copy_block(u2 + kBlock, kBlock, s);
      } else if (layer.highway) {
        copy_block(x + r * size + channel, n, s);
      }
      float* c = cells + r * kBlock;
#pragma omp simd
      for (int64_t j = 0; j < kBlock; ++j) {
        const Step<float> next = forward_step(
            Gates<float>{v_f[j], v_r[j], b_f[j], b_r[j]}, 1.0f, u0[j], u1[j], u2[j], scale * s[j],
            prev[j]);
        c[j] = next.c;
        y[j] = next.h;
      }
      copy_block(y, n, h + r * size + channel);
    }
  }
};

}  // namespace

void LayerNorm::run(const float* x, int64_t rows, float* y) const {
  const int64_t size = weight.numel();
  at::parallel_for(0, rows, share(4 * size), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      run_best(NormRow{
          x + row * size, data<float>(weight), data<float>(bias), y + row * size, size, eps});
    }
  });
}

const float* Layer::query(const float* x, int64_t rows, Workspace& w) const {
  if (pre_norm) {
    float* z = room(w.z, rows * pre_norm.weight.numel());
    pre_norm.run(x, rows, z);
    x = z;
  }
  if (!q_proj) {
    return x;
  }
  float* q = room(w.q, rows * q_proj->out());
  q_proj->pack_rows(x, rows, w.packed);
  q_proj->product(w.packed, rows, q);
  return q;
}

void Layer::begin(const std::vector<Source>& sources, Workspace& w) const {
  if (!kv_proj) {
    return;
  }
  const int64_t in = q_proj->in(), width = kv_proj->out();
  int64_t rows = 0;
  for (const Source& source : sources) {
    rows += source.cache->source();
  }
  float* x = room(w.x, rows * in);
  for (const Source& source : sources) {
    x = std::copy_n(source.x, source.cache->source() * in, x);
  }
  const float* q = query(w.x.data(), rows, w);
  const float* keys_values = room(w.keys_values, rows * width);
  kv_proj->pack_rows(q, rows, w.packed);
  kv_proj->product(w.packed, rows, w.keys_values.data());
  for (const Source& source : sources) {
    for (int64_t slot = 0; slot < source.cache->source(); ++slot, keys_values += width) {
      store_slot(keys_values, *source.cache, slot);
    }
  }
}

void Layer::store_slot(const float* keys_values, KeysValues& cache, int64_t slot) const {
  char* to = cache.at(index, slot);
  if (narrow_cache) {
    run_best(StoreSlot<c10::BFloat16>{keys_values, to, kv_proj->out()});
  } else {
    run_best(StoreSlot<float>{keys_values, to, kv_proj->out()});
  }
}

void Layer::step(const std::vector<Row>& rows, const float* x, Cells& cells, Workspace& w) const {
  const int64_t R = rows.size();
  const float* y = query(x, R, w);
  if (kv_proj) {
    attend(rows, w);
    y = w.y.data();
  }
  if (attn_norm) {
    float* normalised = room(w.y, R * attn_norm.weight.numel());
    attn_norm.run(y, R, normalised);
    y = normalised;
  }
  recur(rows, x, y, cells, w);
  if (post_norm) {
    post_norm.run(w.h.data(), R, w.h.data());
  }
}

void Layer::attend(const std::vector<Row>& rows, Workspace& w) const {
  const int64_t R = rows.size(), width = kv_proj->out(), size = width / 2;
  const float* keys_values = room(w.keys_values, R * width);
  kv_proj->pack_rows(w.q.data(), R, w.packed);
  kv_proj->product(w.packed, R, w.keys_values.data());
  int64_t most = 0;
  for (int64_t r = 0; r < R; ++r) {
    const Row& row = rows[r];
    store_slot(keys_values + r * width, *row.cache, row.slot);
    most = std::max(most, row.cache->source() + int64_t(row.before->size()) + 1);
  }
  float* y = room(w.y, R * size);
  at::parallel_for(0, R, share(most * width), [&](int64_t begin, int64_t end) {
    Attention<float> attention(most, size);
    if (narrow_cache) {
      run_best(AttendRows<c10::BFloat16>{*this, rows, w.q.data(), y, size, begin, end, attention});
    } else {
      run_best(AttendRows<float>{*this, rows, w.q.data(), y, size, begin, end, attention});
    }
  });
}

void Layer::recur(
    const std::vector<Row>& rows, const float* x, const float* y, Cells& cells,
    Workspace& w) const {
  const int64_t R = rows.size(), groups = cell_size() / kBlock;
  cells.advance(R, cell_size());
  float* h = room(w.h, R * size);
  out_proj->pack_rows(y, R, w.packed);
  const int64_t work = R * out_proj->in() * blocks * kBlock;
  at::parallel_for(0, groups, share(work), [&](int64_t begin, int64_t end) {
    alignas(64) std::array<float, kRowsTogether * kMaxBlocks * kBlock> u;
    for (int64_t group = begin; group < end; ++group) {
      for (int64_t first = 0; first < R; first += kRowsTogether) {
        const int64_t count = std::min(kRowsTogether, R - first);
        out_proj->multiply(
            w.packed, first, count, group * blocks, blocks, u.data(), blocks * kBlock);
        run_best(RecurRows{
            *this, rows.data(), u.data(), x,
            cells.before.data() + group * cells.rows_before * kBlock,
            cells.now.data() + group * R * kBlock, h, first, count, group * kBlock});
      }
    }
  });
}

}  // namespace sru
