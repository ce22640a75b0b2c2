#include "emulator.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "lanes.h"

namespace sru::warp {

Emulator emulator;

namespace {

struct Pending {
  char* to;
  const char* from;
  int bytes;
  bool arrived = false;

  void arrive() {
    if (!arrived) {
      memcpy(to, from, bytes);
      arrived = true;
    }
  }
};

using Group = std::vector<Pending>;
std::vector<Group> groups[lanes::kMost];  // of each lane; the last one is not committed yet
std::unique_ptr<char[]> ring;
int ring_bytes = 0;
std::mt19937 generator(1);

void let_some_arrive() {
  if (emulator.timing != kRandom) {
    return;
  }
  for (auto& of_lane : groups) {
    for (Group& group : of_lane) {
      for (Pending& pending : group) {
        if (generator() % 4 == 0) {
          pending.arrive();
        }
      }
    }
  }
}

}  // namespace

void copy(char* shared, const char* global, int bytes) {
  if (bytes != 4 && bytes != 8 && bytes != 16) {
    lanes::stop("a copy of a size that there is not");
  }
  if (reinterpret_cast<uintptr_t>(shared) % bytes || reinterpret_cast<uintptr_t>(global) % bytes) {
    lanes::stop("misaligned copy");
  }
  if (shared < ring.get() || shared + bytes > ring.get() + ring_bytes) {
    lanes::stop("copy outside the shared memory");
  }
  Group& group = groups[lanes::current()].back();
  group.push_back({shared, global, bytes});
  if (emulator.timing == kEarly) {
    group.back().arrive();
  } else if (emulator.timing == kPoisoned) {
    volatile char readable = global[0];  // for the sanitizer of addresses
    readable = global[bytes - 1];
    (void)readable;
    memset(shared, 0xff, bytes);
  }
}

void commit_copies() {
  if (emulator.fault != kNoCommit) {
    groups[lanes::current()].emplace_back();
  }
}

void wait(int pending) {
  auto& mine = groups[lanes::current()];
  pending += emulator.fault == kShortWait;
  const int done = static_cast<int>(mine.size()) - 1 - pending;
  for (int i = 0; i < done; ++i) {
    for (Pending& copy : mine[i]) {
      copy.arrive();
    }
  }
  if (done > 0) {
    mine.erase(mine.begin(), mine.begin() + done);
  }
}

void sync() {
  if (emulator.fault != kNoSync) {
    lanes::meet();
  }
}

void sync_block() {
  if (emulator.fault != kNoBlockSync) {
    lanes::meet_block();
  }
}

uint32_t ballot(bool value) {
  const uint32_t votes = lanes::vote(value);
  return emulator.fault == kOwnVote ? (value ? ~0u : 0u) : votes;
}

void run_blocks(unsigned blocks, int threads, int shared_bytes, const Block& body) {
  ring_bytes = shared_bytes;
  for (unsigned block = 0; block < blocks; ++block) {
    ring.reset(new char[shared_bytes]);
    memset(ring.get(), 0xff, shared_bytes);
    for (auto& of_lane : groups) {
      of_lane.assign(1, Group());
    }
    lanes::run(threads, [&](int lane) { body(block, lane, ring.get()); }, let_some_arrive);
  }
}

}  // namespace sru::warp
