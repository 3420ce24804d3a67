// Stacks that can be switched between: a thread of the simulated GPU is one.
#pragma once

namespace sim {

struct Fiber;

// A fiber of this CPU thread, number `i`; its memory is kept for the next launch.
Fiber *fiber(unsigned i);
// Makes it start at `entry` when it is next switched to. `entry` never returns.
void prepare(Fiber *fiber, void (*entry)());
// From the scheduler to a fiber, and back.
void enter(Fiber *fiber);
void leave(Fiber *fiber);

} // namespace sim
