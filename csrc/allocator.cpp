// Memory of CPU tensors that is kept for the next ones, for as long as a training runs. The
// system's allocator hands large blocks back and fetches them again, page by page, at every update,
// or cuts them up ever more as batches differ in size.
#include "allocator.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <unordered_map>

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <pthread.h>
#include <sys/mman.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace sru {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kLeast = size_t(1) << 17;  // smaller blocks are the system's

// Blocks of whole pages, given out to requests of at least four fifths of their size. Those in use
// and those kept are together at most one and a half times the most that was ever in use: the
// longest unused go back to the system.
class Keeper final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t size) override {
    void* data = size < kLeast ? c10::alloc_cpu(size) : take((size + kPage - 1) / kPage * kPage);
    c10::profiledCPUMemoryReporter().New(data, size);
    return {data, data, &release, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &release; }

  void copy_data(void* to, const void* from, size_t count) const override {
    default_copy_data(to, from, count);
  }

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  struct Kept {
    void* data;
    size_t since;
  };

  static void release(void* data);

  void* take(size_t size) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = kept_.lower_bound(size);
    void* data;
    if (found != kept_.end() && found->first <= size + size / 4) {
      size = found->first;
      data = found->second.data;
      kept_.erase(found);
    } else {
      data = map(size);
    }
    sizes_[data] = size;
    used_ += size;
    most_ = std::max(most_, used_);
    return data;
  }

  void* map(size_t size) {
    while (!kept_.empty() && held_ + size > std::max(most_, used_ + size) / 2 * 3) {
      const auto oldest = std::min_element(
          kept_.begin(), kept_.end(),
          [](const auto& a, const auto& b) { return a.second.since < b.second.since; });
      munmap(oldest->second.data, oldest->first);
      held_ -= oldest->first;
      kept_.erase(oldest);
    }
    void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TORCH_CHECK_WITH(
        OutOfMemoryError, data != MAP_FAILED, "not enough memory: cannot allocate ", size,
        " bytes");
    held_ += size;
    return data;
  }

  // Whether `data` is a block of this allocator's, which is now kept.
  bool keep(void* data) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = sizes_.find(data);
    if (found == sizes_.end()) {
      return false;
    }
    used_ -= found->second;
    kept_.insert({found->second, {data, ++clock_}});
    sizes_.erase(found);
    return true;
  }

  std::mutex mutex_;
  std::unordered_map<void*, size_t> sizes_;  // of blocks in use
  std::multimap<size_t, Kept> kept_;
  size_t held_ = 0, used_ = 0, most_ = 0, clock_ = 0;  // bytes: in use and kept, in use, at most
};

Keeper& keeper() {
  static Keeper* const only = new Keeper;  // tensors may outlive everything else
  return *only;
}

void Keeper::release(void* data) {
  c10::profiledCPUMemoryReporter().Delete(data);
  if (reinterpret_cast<uintptr_t>(data) % kPage != 0 || !keeper().keep(data)) {
    c10::free_cpu(data);
  }
}

}  // namespace

void keep_freed_memory() {
  c10::SetCPUAllocator(&keeper(), 1);
  // A process that is forked, as those that load data, has no thread that would unlock it.
  static const int forks =
      pthread_atfork([] { keeper().lock(); }, [] { keeper().unlock(); }, [] { keeper().unlock(); });
  TORCH_CHECK(forks == 0, "not enough memory");
#ifdef __GLIBC__
  // Others' large blocks, as oneDNN's, stay out of the heap: glibc would not use an aligned block
  // for the next of its size.
  mallopt(M_MMAP_THRESHOLD, kLeast);
#endif
}

}  // namespace sru
