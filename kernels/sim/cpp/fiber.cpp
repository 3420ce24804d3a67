#include "fiber.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace sim {

// Kernels keep what a thread needs in registers, so little is on their stacks; a page below each that nothing may touch.
static const size_t STACK = 256 * 1024, GUARD = 4096;

struct Fiber {
    char *stack;
    void (*entry)();
#if defined(__x86_64__)
    void *stack_pointer, *scheduler;
#else
    ucontext_t context, scheduler;
#endif
};

Fiber *fiber(unsigned i) {
    static thread_local std::vector<Fiber *> all;
    while (all.size() <= i) {
        void *stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED || mprotect(stack, GUARD, PROT_NONE) != 0) abort();
        all.push_back(new Fiber());
        all.back()->stack = static_cast<char *>(stack);
    }
    return all[i];
}

#if defined(__x86_64__)

// Keeps the registers that a function must preserve and the stack pointer in *save, and takes up those of `load`.
extern "C" void sim_switch(void **save, void *load) __attribute__((visibility("hidden")));
asm(R"(
.text
.type sim_switch, @function
.hidden sim_switch
.globl sim_switch
sim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size sim_switch, . - sim_switch
)");

void prepare(Fiber *fiber, void (*entry)()) {
    auto *top = reinterpret_cast<void **>(fiber->stack + STACK);
    *--top = nullptr; // where a called function finds its caller; 16-byte alignment as after a call
    *--top = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    fiber->stack_pointer = top;
}

void enter(Fiber *fiber) { sim_switch(&fiber->scheduler, fiber->stack_pointer); }
void leave(Fiber *fiber) { sim_switch(&fiber->stack_pointer, fiber->scheduler); }

#else

void prepare(Fiber *fiber, void (*entry)()) {
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = STACK;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, entry, 0);
}

void enter(Fiber *fiber) { swapcontext(&fiber->scheduler, &fiber->context); }
void leave(Fiber *fiber) { swapcontext(&fiber->context, &fiber->scheduler); }

#endif

} // namespace sim
