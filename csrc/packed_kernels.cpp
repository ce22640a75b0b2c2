// The products of packed matrices, a kernel for each precision and instruction set.
#include "packed.h"

#include <algorithm>
#include <cmath>

#include "cpu.h"

#ifdef SRU_X86
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12 warns of its own header's placeholders
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#endif

namespace sru {
namespace {

// A row as a scale times integers of at most 127. Its largest number decides the scale; a row with
// NaN or infinity gives NaN, one below 2^-100 throughout counts as 0.
struct Quantiser {
  float scale, inverse;

  SRU_INLINE Quantiser(const float* x, int64_t in) {
    int32_t largest = 0;  // as integers, floats without their signs are in order, NaN last
    for (int64_t i = 0; i < in; ++i) {
      largest = std::max(largest, bit_cast<int32_t>(x[i]) & 0x7fffffff);
    }
    const float limit = bit_cast<float>(largest);
    const bool finite = largest < 0x7f800000, tiny = largest < 27 << 23;
    scale = !finite ? NAN : tiny ? 0 : limit / 127;
    inverse = !finite || tiny ? 0 : 127 / limit;
  }

  // Numbers [begin, in) one by one, rounded to the nearest, ties to even; returns their sum.
  SRU_INLINE int32_t quantise(const float* x, int64_t begin, int64_t in, int8_t* bytes) const {
    int32_t sum = 0;
    for (int64_t i = begin; i < in; ++i) {
      bytes[i] = inverse == 0 ? 0 : int8_t(std::lrintf(x[i] * inverse));
      sum += bytes[i];
    }
    return sum;
  }

  // What every sum begins with: it takes back the 128 that the weights have been shifted by.
  static SRU_INLINE int32_t start(int32_t sum) { return -128 * sum; }
};

SRU_INLINE void clear_end(uint32_t* words, int64_t bytes) {
  for (char* p = reinterpret_cast<char*>(words); bytes % 4 != 0; ++bytes) {
    p[bytes] = 0;
  }
}

SRU_INLINE void copy_row(const float* x, int64_t in, uint32_t* words) {
  memcpy(words, x, in * sizeof(float));
}

SRU_INLINE void round_row(const float* x, int64_t in, uint32_t* words) {
  auto* numbers = reinterpret_cast<c10::BFloat16*>(words);
  for (int64_t i = 0; i < in; ++i) {
    store(numbers + i, x[i]);
  }
  clear_end(words, in * 2);
}

SRU_INLINE void quantise_row(
    const float* x, int64_t in, uint32_t* words, float* scale, int32_t* start) {
  const Quantiser quantiser(x, in);
  *scale = quantiser.scale;
  *start = Quantiser::start(quantiser.quantise(x, 0, in, reinterpret_cast<int8_t*>(words)));
  clear_end(words, in);
}

bool always() {
  return true;
}

// Plain loops over the lanes, for the compiler to vectorise.
#define SRU_TARGET

template <typename T>
struct Lanes {
  static constexpr int kLanes = kBlock, kSums = 4;
  T at[kBlock];

  static SRU_INLINE Lanes of(T value) {
    Lanes lanes;
    std::fill_n(lanes.at, kBlock, value);
    return lanes;
  }
};

struct Portable {
  static constexpr int kLanes = kBlock, kSums = 4;
  using Weight = const uint32_t*;
  using Input = uint32_t;
  static SRU_INLINE Weight load(const uint32_t* words) { return words; }
  static SRU_INLINE Input broadcast(uint32_t word) { return word; }
};

struct PortableFloat : Portable {
  using Sum = Lanes<float>;
  static SRU_INLINE Sum begin(int32_t) { return Sum::of(0); }
  static SRU_INLINE void finish(const Sum& sum, float, const float*, float* y) {
    std::copy_n(sum.at, kBlock, y);
  }
};

namespace portable_float32 {
struct Isa : PortableFloat {
  static SRU_INLINE Sum add(Sum sum, Weight w, Input x) {
    for (int i = 0; i < kBlock; ++i) {
      sum.at[i] += bit_cast<float>(w[i]) * bit_cast<float>(x);
    }
    return sum;
  }
  static SRU_INLINE void pack_row(const float* x, int64_t in, uint32_t* words, float*, int32_t*) {
    copy_row(x, in, words);
  }
};
#include "packed_tile.h"
}  // namespace portable_float32

SRU_INLINE float low(uint32_t word) {
  return bit_cast<float>(word << 16);
}
SRU_INLINE float high(uint32_t word) {
  return bit_cast<float>(word & 0xffff0000u);
}

namespace portable_bfloat16 {
struct Isa : PortableFloat {
  static SRU_INLINE Sum add(Sum sum, Weight w, Input x) {
    for (int i = 0; i < kBlock; ++i) {
      sum.at[i] += low(w[i]) * low(x) + high(w[i]) * high(x);
    }
    return sum;
  }
  static SRU_INLINE void pack_row(const float* x, int64_t in, uint32_t* words, float*, int32_t*) {
    round_row(x, in, words);
  }
};
#include "packed_tile.h"
}  // namespace portable_bfloat16

namespace portable_int8 {
struct Isa : Portable {
  using Sum = Lanes<int32_t>;
  static SRU_INLINE Sum begin(int32_t start) { return Sum::of(start); }
  static SRU_INLINE Sum add(Sum sum, Weight w, Input x) {
    for (int i = 0; i < kBlock; ++i) {
      for (int shift = 0; shift < 32; shift += 8) {
        sum.at[i] += int32_t(w[i] >> shift & 255) * int8_t(x >> shift);
      }
    }
    return sum;
  }
  static SRU_INLINE void finish(const Sum& sum, float x_scale, const float* scale, float* y) {
    for (int i = 0; i < kBlock; ++i) {
      y[i] = float(sum.at[i]) * x_scale * scale[i];
    }
  }
  static SRU_INLINE void pack_row(
      const float* x, int64_t in, uint32_t* words, float* scale, int32_t* start) {
    quantise_row(x, in, words, scale, start);
  }
};
#include "packed_tile.h"
}  // namespace portable_int8
#undef SRU_TARGET

#ifdef SRU_X86

// Sums of int8 products: GCC keeps arrays of this type in registers, but not of __m512i.
template <int bytes>
struct IntsOf {
  typedef int32_t type __attribute__((vector_size(bytes)));
};
template <int bytes>
using Ints = typename IntsOf<bytes>::type;

// AVX2: 16 registers of 8 lanes.
#define SRU_TARGET SRU_AVX2
#define SRU_TARGET_INLINE static inline __attribute__((always_inline)) SRU_TARGET

bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

struct Avx2Float {
  static constexpr int kLanes = 8, kSums = 12;
  using Sum = __m256;
  SRU_TARGET_INLINE Sum begin(int32_t) { return _mm256_setzero_ps(); }
  SRU_TARGET_INLINE void finish(Sum sum, float, const float*, float* y) {
    _mm256_storeu_ps(y, sum);
  }
};

SRU_TARGET_INLINE __m256i load256(const uint32_t* words) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
}

namespace avx2_float32 {
struct Isa : Avx2Float {
  using Weight = __m256;
  using Input = __m256;
  SRU_TARGET_INLINE Weight load(const uint32_t* words) {
    return _mm256_castsi256_ps(load256(words));
  }
  SRU_TARGET_INLINE Input broadcast(uint32_t word) { return _mm256_set1_ps(bit_cast<float>(word)); }
  SRU_TARGET_INLINE Sum add(Sum sum, Weight w, Input x) { return _mm256_fmadd_ps(w, x, sum); }
  SRU_TARGET_INLINE void pack_row(const float* x, int64_t in, uint32_t* words, float*, int32_t*) {
    copy_row(x, in, words);
  }
};
#include "packed_tile.h"
}  // namespace avx2_float32

namespace avx2_bfloat16 {
struct Isa : Avx2Float {
  struct Pair {
    __m256 low, high;
  };
  using Weight = Pair;
  using Input = Pair;
  SRU_TARGET_INLINE Pair unpack(__m256i words) {
    const __m256i mask = _mm256_set1_epi32(int(0xffff0000u));
    return {
        _mm256_castsi256_ps(_mm256_slli_epi32(words, 16)),
        _mm256_castsi256_ps(_mm256_and_si256(words, mask))};
  }
  SRU_TARGET_INLINE Weight load(const uint32_t* words) { return unpack(load256(words)); }
  SRU_TARGET_INLINE Input broadcast(uint32_t word) {
    return {_mm256_set1_ps(low(word)), _mm256_set1_ps(high(word))};
  }
  SRU_TARGET_INLINE Sum add(Sum sum, Weight w, Input x) {
    return _mm256_fmadd_ps(w.high, x.high, _mm256_fmadd_ps(w.low, x.low, sum));
  }
  SRU_TARGET_INLINE void pack_row(const float* x, int64_t in, uint32_t* words, float*, int32_t*) {
    round_row(x, in, words);
  }
};
#include "packed_tile.h"
}  // namespace avx2_bfloat16

SRU_TARGET_INLINE void quantise_row_avx2(
    const float* x, int64_t in, uint32_t* words, float* scale, int32_t* start) {
  const Quantiser quantiser(x, in);
  auto* bytes = reinterpret_cast<int8_t*>(words);
  const __m256 inverse = _mm256_set1_ps(quantiser.inverse);
  __m256i sums = _mm256_setzero_si256();
  int64_t i = 0;
  for (; quantiser.inverse != 0 && i + 8 <= in; i += 8) {
    const __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), inverse));
    sums = _mm256_add_epi32(sums, q);
    const __m128i shorts =
        _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(bytes + i), _mm_packs_epi16(shorts, shorts));
  }
  alignas(32) int32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sums);
  int32_t sum = quantiser.quantise(x, i, in, bytes);
  for (int32_t lane : lanes) {
    sum += lane;
  }
  *scale = quantiser.scale;
  *start = Quantiser::start(sum);
  clear_end(words, in);
}

// Pairs of products of at most 127 * 127 are exact in 16 bits, hence signed weights here and the
// signs of the inputs given to them.
namespace avx2_int8 {
struct Isa {
  static constexpr int kLanes = 8, kSums = 8;
  using Weight = __m256i;
  struct Input {
    __m256i signs, size;
  };
  using Sum = Ints<32>;
  SRU_TARGET_INLINE Sum begin(int32_t) { return Sum{}; }
  SRU_TARGET_INLINE Weight load(const uint32_t* words) {
    return _mm256_xor_si256(load256(words), _mm256_set1_epi8(int8_t(0x80)));
  }
  SRU_TARGET_INLINE Input broadcast(uint32_t word) {
    const __m256i x = _mm256_set1_epi32(int(word));
    return {x, _mm256_abs_epi8(x)};
  }
  SRU_TARGET_INLINE Sum add(Sum sum, Weight w, Input x) {
    const __m256i pairs = _mm256_maddubs_epi16(x.size, _mm256_sign_epi8(w, x.signs));
    return sum + Sum(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  SRU_TARGET_INLINE void finish(Sum sum, float x_scale, const float* scale, float* y) {
    const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(__m256i(sum)), _mm256_set1_ps(x_scale));
    _mm256_storeu_ps(y, _mm256_mul_ps(scaled, _mm256_loadu_ps(scale)));
  }
  SRU_TARGET_INLINE void pack_row(
      const float* x, int64_t in, uint32_t* words, float* scale, int32_t* start) {
    quantise_row_avx2(x, in, words, scale, start);
  }
};
#include "packed_tile.h"
}  // namespace avx2_int8
#undef SRU_TARGET

// AVX-VNNI, the dot product of bytes without AVX-512.
#define SRU_TARGET __attribute__((target("avx2,fma,avxvnni")))

bool has_avxvnni() {
  return has_avx2() && __builtin_cpu_supports("avxvnni");
}

namespace avxvnni_int8 {
struct Isa {
  static constexpr int kLanes = 8, kSums = 12;
  using Weight = __m256i;
  using Input = __m256i;
  using Sum = Ints<32>;
  SRU_TARGET_INLINE Sum begin(int32_t start) { return Sum(_mm256_set1_epi32(start)); }
  SRU_TARGET_INLINE Weight load(const uint32_t* words) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
  }
  SRU_TARGET_INLINE Input broadcast(uint32_t word) { return _mm256_set1_epi32(int(word)); }
  SRU_TARGET_INLINE Sum add(Sum sum, Weight w, Input x) {
    return Sum(_mm256_dpbusd_avx_epi32(__m256i(sum), w, x));
  }
  SRU_TARGET_INLINE void finish(Sum sum, float x_scale, const float* scale, float* y) {
    const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(__m256i(sum)), _mm256_set1_ps(x_scale));
    _mm256_storeu_ps(y, _mm256_mul_ps(scaled, _mm256_loadu_ps(scale)));
  }
  SRU_TARGET_INLINE void pack_row(
      const float* x, int64_t in, uint32_t* words, float* scale, int32_t* start) {
    quantise_row_avx2(x, in, words, scale, start);
  }
};
#include "packed_tile.h"
}  // namespace avxvnni_int8
#undef SRU_TARGET

// AVX-512: 32 registers of 16 lanes.
#define SRU_TARGET SRU_AVX512

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

struct Avx512Float {
  static constexpr int kLanes = 16, kSums = 24;
  using Sum = __m512;
  SRU_TARGET_INLINE Sum begin(int32_t) { return _mm512_setzero_ps(); }
  SRU_TARGET_INLINE void finish(Sum sum, float, const float*, float* y) {
    _mm512_storeu_ps(y, sum);
  }
};

namespace avx512_float32 {
struct Isa : Avx512Float {
  using Weight = __m512;
  using Input = __m512;
  SRU_TARGET_INLINE Weight load(const uint32_t* words) { return _mm512_loadu_ps(words); }
  SRU_TARGET_INLINE Input broadcast(uint32_t word) { return _mm512_set1_ps(bit_cast<float>(word)); }
  SRU_TARGET_INLINE Sum add(Sum sum, Weight w, Input x) { return _mm512_fmadd_ps(w, x, sum); }
  SRU_TARGET_INLINE void pack_row(const float* x, int64_t in, uint32_t* words, float*, int32_t*) {
    copy_row(x, in, words);
  }
};
#include "packed_tile.h"
}  // namespace avx512_float32

namespace avx512_bfloat16 {
struct Isa : Avx512Float {
  struct Pair {
    __m512 low, high;
  };
  using Weight = Pair;
  using Input = Pair;
  static constexpr int kSums = 16;
  SRU_TARGET_INLINE Weight load(const uint32_t* words) {
    const __m512i both = _mm512_loadu_si512(words);
    return {
        _mm512_castsi512_ps(_mm512_slli_epi32(both, 16)),
        _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(int(0xffff0000u))))};
  }
  SRU_TARGET_INLINE Input broadcast(uint32_t word) {
    return {_mm512_set1_ps(low(word)), _mm512_set1_ps(high(word))};
  }
  SRU_TARGET_INLINE Sum add(Sum sum, Weight w, Input x) {
    return _mm512_fmadd_ps(w.high, x.high, _mm512_fmadd_ps(w.low, x.low, sum));
  }
  SRU_TARGET_INLINE void pack_row(const float* x, int64_t in, uint32_t* words, float*, int32_t*) {
    round_row(x, in, words);
  }
};
#include "packed_tile.h"
}  // namespace avx512_bfloat16
#undef SRU_TARGET

// AVX-512 with dot products of bfloat16 pairs.
#define SRU_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,avx512bf16")))

bool has_avx512bf16() {
  return has_avx512() && __builtin_cpu_supports("avx512bf16");
}

namespace avx512bf16_bfloat16 {
struct Isa {
  static constexpr int kLanes = 16, kSums = 24;
  using Weight = __m512bh;
  using Input = __m512bh;
  using Sum = __m512;
  SRU_TARGET_INLINE Sum begin(int32_t) { return _mm512_setzero_ps(); }
  SRU_TARGET_INLINE Weight load(const uint32_t* words) {
    return (__m512bh)_mm512_loadu_si512(words);
  }
  SRU_TARGET_INLINE Input broadcast(uint32_t word) {
    return (__m512bh)_mm512_set1_epi32(int(word));
  }
  SRU_TARGET_INLINE Sum add(Sum sum, Weight w, Input x) { return _mm512_dpbf16_ps(sum, w, x); }
  SRU_TARGET_INLINE void finish(Sum sum, float, const float*, float* y) {
    _mm512_storeu_ps(y, sum);
  }
  SRU_TARGET_INLINE void pack_row(const float* x, int64_t in, uint32_t* words, float*, int32_t*) {
    round_row(x, in, words);
  }
};
#include "packed_tile.h"
}  // namespace avx512bf16_bfloat16
#undef SRU_TARGET

// AVX-512 with dot products of four bytes.
#define SRU_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,avx512vnni")))

bool has_avx512vnni() {
  return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

namespace avx512vnni_int8 {
struct Isa {
  static constexpr int kLanes = 16, kSums = 24;
  using Weight = __m512i;
  using Input = __m512i;
  using Sum = Ints<64>;
  SRU_TARGET_INLINE Sum begin(int32_t start) { return Sum(_mm512_set1_epi32(start)); }
  SRU_TARGET_INLINE Weight load(const uint32_t* words) { return _mm512_loadu_si512(words); }
  SRU_TARGET_INLINE Input broadcast(uint32_t word) { return _mm512_set1_epi32(int(word)); }
  SRU_TARGET_INLINE Sum add(Sum sum, Weight w, Input x) {
    return Sum(_mm512_dpbusd_epi32(__m512i(sum), w, x));
  }
  SRU_TARGET_INLINE void finish(Sum sum, float x_scale, const float* scale, float* y) {
    const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(__m512i(sum)), _mm512_set1_ps(x_scale));
    _mm512_storeu_ps(y, _mm512_mul_ps(scaled, _mm512_loadu_ps(scale)));
  }
  SRU_TARGET_INLINE void pack_row(
      const float* x, int64_t in, uint32_t* words, float* scale, int32_t* start) {
    const Quantiser quantiser(x, in);
    auto* bytes = reinterpret_cast<int8_t*>(words);
    const __m512 inverse = _mm512_set1_ps(quantiser.inverse);
    __m512i sums = _mm512_setzero_si512();
    int64_t i = 0;
    for (; quantiser.inverse != 0 && i + 16 <= in; i += 16) {
      const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), inverse));
      sums = _mm512_add_epi32(sums, q);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + i), _mm512_cvtepi32_epi8(q));
    }
    const int32_t sum = quantiser.quantise(x, i, in, bytes) + _mm512_reduce_add_epi32(sums);
    *scale = quantiser.scale;
    *start = Quantiser::start(sum);
    clear_end(words, in);
  }
};
#include "packed_tile.h"
}  // namespace avx512vnni_int8
#undef SRU_TARGET

#endif  // SRU_X86

}  // namespace

const std::vector<Kernel>& kernels() {
  constexpr auto kFloat32 = Precision::kFloat32, kBFloat16 = Precision::kBFloat16;
  constexpr auto kInt8 = Precision::kInt8;
#define SRU_KERNEL(isa, supported, precision, space) \
  { isa, precision, supported, space::multiply, space::pack_row }
  static const std::vector<Kernel> all = {
#ifdef SRU_X86
      SRU_KERNEL("avx512", has_avx512, kFloat32, avx512_float32),
      SRU_KERNEL("avx2", has_avx2, kFloat32, avx2_float32),
      SRU_KERNEL("avx512bf16", has_avx512bf16, kBFloat16, avx512bf16_bfloat16),
      SRU_KERNEL("avx512", has_avx512, kBFloat16, avx512_bfloat16),
      SRU_KERNEL("avx2", has_avx2, kBFloat16, avx2_bfloat16),
      SRU_KERNEL("avx512vnni", has_avx512vnni, kInt8, avx512vnni_int8),
      SRU_KERNEL("avxvnni", has_avxvnni, kInt8, avxvnni_int8),
      SRU_KERNEL("avx2", has_avx2, kInt8, avx2_int8),
#endif
      SRU_KERNEL("portable", always, kFloat32, portable_float32),
      SRU_KERNEL("portable", always, kBFloat16, portable_bfloat16),
      SRU_KERNEL("portable", always, kInt8, portable_int8),
  };
#undef SRU_KERNEL
  return all;
}

}  // namespace sru
