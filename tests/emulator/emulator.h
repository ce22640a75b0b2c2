// Takes the place of csrc/warp.cuh: blocks of a GPU on a CPU, one at a time.
//
// Lanes meet at real barriers and run in any order between them. An asynchronous copy arrives at
// any moment that the rules allow, from its issue to the wait for its group. Shared memory starts
// as NaN, and every copy is checked for alignment and bounds.
#pragma once

#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <set>
#include <typeindex>

#include "inline.h"

namespace sru::warp {

// When copies arrive. kPoisoned: late, and the destination is NaN from the issue on.
enum Timing { kPoisoned, kLate, kEarly, kRandom, kTimings };
// In which order lanes of a warp run up to the next barrier, and which of two warps runs ahead.
enum Order { kUp, kDown, kShuffled, kOrders };
// What a test makes go wrong, to see that it is noticed.
enum Fault { kNoFault, kNoSync, kShortWait, kNoCommit, kOwnVote, kNoBlockSync };

struct Emulator {
  Timing timing = kPoisoned;
  Order order = kUp;
  Fault fault = kNoFault;
  int64_t processors = 132;
  std::set<std::type_index> programs;  // that ran
};
extern Emulator emulator;

void copy(char* shared, const char* global, int bytes);
void commit_copies();
void wait(int pending);
void sync();
void sync_block();
uint32_t ballot(bool value);

template <int Bytes>
void copy_async(char* shared, const char* global) {
  copy(shared, global, Bytes);
}
template <int Pending>
void wait_for_copies() {
  wait(Pending);
}

SRU_INLINE uint32_t load_16_bits(const uint16_t* from) {
  return *from;
}

SRU_INLINE float flush(float x) {
  return std::fabs(x) < 1.17549435e-38f ? std::copysign(0.0f, x) : x;
}
SRU_INLINE float exp2(float x) {
  return flush(std::exp2(flush(x)));
}
SRU_INLINE float reciprocal(float x) {
  return flush(1.0f / flush(x));
}

using Block = std::function<void(unsigned block, int index, char* shared)>;
void run_blocks(unsigned blocks, int threads, int shared_bytes, const Block& body);

template <typename Program, typename Arguments>
cudaError_t launch(const Arguments& args, unsigned blocks, cudaStream_t) {
  emulator.programs.insert(typeid(Program));
  const auto body = [&](unsigned block, int index, char* shared) {
    Program::run(args, block, index, shared);
  };
  run_blocks(blocks, Program::kThreads, Program::kShared, body);
  return cudaSuccess;
}

inline int64_t processors() {
  return emulator.processors;
}

}  // namespace sru::warp
