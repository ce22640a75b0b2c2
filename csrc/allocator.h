// The allocator of CPU tensors.
#pragma once

namespace sru {

// From now on memory of CPU tensors that is freed is kept for other CPU tensors.
void keep_freed_memory();

}  // namespace sru
