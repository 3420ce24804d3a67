// Every access that a kernel makes, checked: within memory, to memory that was written before it is read, and in order with
// the accesses of other threads. Only where the kernels are compiled for it (`SIM_CHECK`); nothing happens otherwise.
//
// What orders accesses: a block's barrier, a warp's barrier, the end of a launch. Nothing else does: a shuffle or a tensor
// core instruction waits for the other lanes, but promises nothing of memory.
#pragma once
#include <cstddef>

#include "simulator.hpp"

namespace sim {

#ifdef SIM_CHECK
const bool CHECKED = true;
#else
const bool CHECKED = false;
#endif

// Global memory of `bytes`, far from any other, in which nothing is written; null where there is no more.
void *check_new(size_t bytes);
void check_free(void *at, size_t bytes);
// Memory that was freed is there again, with nothing written in it.
void check_fresh(void *at, size_t bytes);
// From outside a kernel: written, copied, and whether all of it may be read.
void check_written(void *at, size_t bytes);
void check_copied(void *to, const void *from, size_t bytes);
bool check_readable(const void *at, size_t bytes);

// The memory of a block, all of it; nobody may touch it but for variables.
void check_block(void *at, size_t bytes);
void check_variable(void *at, size_t bytes);

// Multiply: a product by four warps reads it, which sees only what was published.
enum class Access { Read, Write, Multiply };
// What a primitive does for thread `number` of the block.
void check_access(const void *at, size_t bytes, Access access, unsigned number, Site site);
// An asynchronous copy to here has begun, and is done.
void check_begun(const void *at, size_t bytes, Site site);
void check_done(const void *at, size_t bytes, unsigned number, Site site);
// A copy that no thread has done is done; who waits for it is woken by it, and so reads after it.
void check_arrived(const void *at, size_t bytes);

} // namespace sim
