// Lanes as fibers: one runs until it reaches a barrier, then the next of its warp.
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "emulator.h"
#include "lanes.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace sru::lanes {
namespace {

enum State { kRunning, kMeeting, kVoting, kMeetingBlock, kEnded };

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(1 << 17);
  void* fake_stack = nullptr;
  State state = kRunning;
  bool value = false;
};

Fiber fibers[kMost];
ucontext_t scheduler;
void* scheduler_fake_stack = nullptr;
const void* scheduler_stack = nullptr;
size_t scheduler_size = 0;
int running = 0;
uint32_t votes[kMost / kWarp];
const std::function<void(int)>* body_of_block = nullptr;
std::mt19937 generator(2);

// What the sanitizer of addresses has to know of a change of stacks.
void leave_for(void** fake_stack, const void* stack, size_t size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(fake_stack, stack, size);
#else
  (void)fake_stack, (void)stack, (void)size;
#endif
}
void arrived_from(void* fake_stack, const void** stack, size_t* size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack, stack, size);
#else
  (void)fake_stack, (void)stack, (void)size;
#endif
}

void wait_as(State state) {
  Fiber& self = fibers[running];
  self.state = state;
  leave_for(&self.fake_stack, scheduler_stack, scheduler_size);
  swapcontext(&self.context, &scheduler);
  arrived_from(self.fake_stack, &scheduler_stack, &scheduler_size);
}

void live() {
  arrived_from(nullptr, &scheduler_stack, &scheduler_size);
  (*body_of_block)(running);
  fibers[running].state = kEnded;
  leave_for(nullptr, scheduler_stack, scheduler_size);
  setcontext(&scheduler);
}

void go_on(int lane) {
  running = lane;
  Fiber& fiber = fibers[lane];
  leave_for(&scheduler_fake_stack, fiber.stack.data(), fiber.stack.size());
  swapcontext(&scheduler, &fiber.context);
  arrived_from(scheduler_fake_stack, nullptr, nullptr);
}

bool all_of(int first, int count, State state) {
  return std::all_of(
      fibers + first, fibers + first + count, [&](const Fiber& f) { return f.state == state; });
}

void release(int first, int count) {
  for (int i = first; i < first + count; ++i) {
    fibers[i].state = kRunning;
  }
}

// Lets lanes go on that all wait for each other. Says whether any lane can.
bool release_waiting(int count) {
  bool running = false;
  for (int first = 0; first < count; first += kWarp) {
    const State state = fibers[first].state;
    if (!all_of(first, kWarp, state)) {
      stop("lanes wait at different barriers");
    }
    if (state == kVoting) {
      votes[first / kWarp] = 0;
      for (int i = 0; i < kWarp; ++i) {
        votes[first / kWarp] |= uint32_t(fibers[first + i].value) << i;
      }
    }
    if (state == kMeeting || state == kVoting) {
      release(first, kWarp);
    }
    running |= fibers[first].state == kRunning;
  }
  if (running || all_of(0, count, kEnded)) {
    return running;
  }
  if (!all_of(0, count, kMeetingBlock)) {
    stop("a warp waits for one that has ended");
  }
  release(0, count);
  return true;
}

// A warp whose turn it is: as in emulator.order, one of them runs as far ahead as it can.
int next_warp(int count) {
  int warps[kMost / kWarp], found = 0;
  for (int first = 0; first < count; first += kWarp) {
    if (fibers[first].state == kRunning) {
      warps[found++] = first / kWarp;
    }
  }
  return warp::emulator.order == warp::kUp     ? warps[0]
         : warp::emulator.order == warp::kDown ? warps[found - 1]
                                               : warps[generator() % found];
}

}  // namespace

void run(int count, const std::function<void(int)>& body, const std::function<void()>& between) {
  body_of_block = &body;
  for (int i = 0; i < count; ++i) {
    Fiber& fiber = fibers[i];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, live, 0);
    fiber.state = kRunning;
  }
  int turn[kWarp];
  for (int i = 0; i < kWarp; ++i) {
    turn[i] = warp::emulator.order == warp::kDown ? kWarp - 1 - i : i;
  }
  while (release_waiting(count)) {
    if (warp::emulator.order == warp::kShuffled) {
      std::shuffle(turn, turn + kWarp, generator);
    }
    const int first = next_warp(count) * kWarp;
    for (const int lane : turn) {
      between();
      go_on(first + lane);
    }
  }
}

int current() {
  return running;
}

void meet() {
  wait_as(kMeeting);
}

void meet_block() {
  wait_as(kMeetingBlock);
}

uint32_t vote(bool value) {
  fibers[running].value = value;
  wait_as(kVoting);
  return votes[running / kWarp];
}

void stop(const char* reason) {
  fprintf(stderr, "emulator: %s\n", reason);
  _Exit(2);
}

}  // namespace sru::lanes
