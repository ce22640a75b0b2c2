// The lanes of a block's warps: fibers, or threads for the sanitizer of threads.
#pragma once

#include <cstdint>
#include <functional>

namespace sru::lanes {

constexpr int kWarp = 32;
constexpr int kMost = 2 * kWarp;

// Runs body(lane) on `count` lanes, whole warps, until all have ended. `between` is called whenever
// a lane goes on.
void run(int count, const std::function<void(int)>& body, const std::function<void()>& between);

// For a lane: which one it is, and barriers that all of its warp, or of the block, have to reach.
int current();
void meet();
void meet_block();
uint32_t vote(bool value);

[[noreturn]] void stop(const char* reason);

}  // namespace sru::lanes
