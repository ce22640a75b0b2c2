// Lanes as fibers: one runs until it reaches a barrier, then the next.
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

enum State { kRunning, kMeeting, kVoting, kEnded };

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(1 << 17);
  void* fake_stack = nullptr;
  State state = kRunning;
  bool value = false;
};

Fiber fibers[kCount];
ucontext_t scheduler;
void* scheduler_fake_stack = nullptr;
const void* scheduler_stack = nullptr;
size_t scheduler_size = 0;
int running = 0;
uint32_t votes = 0;
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
  fiber.state = kRunning;
  leave_for(&scheduler_fake_stack, fiber.stack.data(), fiber.stack.size());
  swapcontext(&scheduler, &fiber.context);
  arrived_from(scheduler_fake_stack, nullptr, nullptr);
}

}  // namespace

void run(const std::function<void(int)>& body, const std::function<void()>& between) {
  body_of_block = &body;
  int turn[kCount];
  for (int i = 0; i < kCount; ++i) {
    Fiber& fiber = fibers[i];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, live, 0);
    turn[i] = warp::emulator.order == warp::kDown ? kCount - 1 - i : i;
  }
  do {
    if (warp::emulator.order == warp::kShuffled) {
      std::shuffle(turn, turn + kCount, generator);
    }
    for (const int lane : turn) {
      between();
      go_on(lane);
    }
    votes = 0;
    for (int i = 0; i < kCount; ++i) {
      if (fibers[i].state != fibers[0].state) {
        stop("lanes wait at different barriers");
      }
      votes |= uint32_t(fibers[i].value) << i;
    }
  } while (fibers[0].state != kEnded);
}

int current() {
  return running;
}

void meet() {
  wait_as(kMeeting);
}

uint32_t vote(bool value) {
  fibers[running].value = value;
  wait_as(kVoting);
  return votes;
}

void stop(const char* reason) {
  fprintf(stderr, "emulator: %s\n", reason);
  _Exit(2);
}

}  // namespace sru::lanes
