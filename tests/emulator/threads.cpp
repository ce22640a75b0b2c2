// Lanes as threads, for the sanitizer of threads: it finds races whatever the order lanes ran in.
#include <atomic>
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "lanes.h"

namespace sru::lanes {
namespace {

thread_local int mine = 0;
std::barrier<> barrier(kCount);
std::atomic<uint32_t> votes;

}  // namespace

void run(const std::function<void(int)>& body, const std::function<void()>&) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kCount; ++i) {
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
  barrier.arrive_and_wait();
}

uint32_t vote(bool value) {
  meet();
  votes = 0;
  meet();
  votes |= uint32_t(value) << mine;
  meet();
  return votes;
}

void stop(const char* reason) {
  fprintf(stderr, "emulator: %s\n", reason);
  _Exit(2);
}

}  // namespace sru::lanes
