// The 32 lanes of a warp: fibers, or threads for the sanitizer of threads.
#pragma once

#include <cstdint>
#include <functional>

namespace sru::lanes {

constexpr int kCount = 32;

// Runs body(lane) on every lane until all have ended. `between` is called whenever a lane goes on.
void run(const std::function<void(int)>& body, const std::function<void()>& between);

// For a lane: which one it is, and barriers that all have to reach.
int current();
void meet();
uint32_t vote(bool value);

[[noreturn]] void stop(const char* reason);

}  // namespace sru::lanes
