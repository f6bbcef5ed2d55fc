// Threads that work on one thing together and wait for each other often.
#pragma once

#include "cpu/threads.hpp"

// All of them meet here before one goes on. They spin for some microseconds, then leave the processor to others: where
// there are more threads than processors, the one that is waited for must get its turn.
class Barrier {
  public:
    void wait(int threads) noexcept;  // compiled once, for the base instruction set (cpu/team.cpp)

  private:
    alignas(64) int arrived_ = 0;
    alignas(64) unsigned round_ = 0;
};

// Of one thread: which it is, of how many.
struct Team {
    Barrier& barrier;
    int index = omp_get_thread_num();
    int count = omp_get_num_threads();

    void wait() const {
        if (count > 1) barrier.wait(count);
    }
};
