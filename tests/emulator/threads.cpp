// Lanes as threads, for the sanitizer of threads: it finds races whatever the order lanes ran in.
#include <atomic>
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "lanes.h"

namespace sru::lanes {
namespace {

thread_local int mine = 0;
std::barrier<> warps[] = {std::barrier<>(kWarp), std::barrier<>(kWarp)};
std::unique_ptr<std::barrier<>> block;
std::atomic<uint32_t> votes[kMost / kWarp];

}  // namespace

void run(int count, const std::function<void(int)>& body, const std::function<void()>&) {
  block = std::make_unique<std::barrier<>>(count);
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&body, i] {
      mine = i;
      body(i);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

int current() {
  return mine;
}

void meet() {
  warps[mine / kWarp].arrive_and_wait();
}

void meet_block() {
  block->arrive_and_wait();
}

uint32_t vote(bool value) {
  meet();
  votes[mine / kWarp] = 0;
  meet();
  votes[mine / kWarp] |= uint32_t(value) << mine % kWarp;
  meet();
  return votes[mine / kWarp];
}

void stop(const char* reason) {
  fprintf(stderr, "emulator: %s\n", reason);
  _Exit(2);
}

}  // namespace sru::lanes
