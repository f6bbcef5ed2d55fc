// Memory that is read next, asked for while something else is computed.
//
// The last cache of a server answers after 90 to 120 ns. A processor that prefetches by itself begins anew at every page,
// and waits for the first lines of each.
#pragma once

#include "gram/view.hpp"

namespace {

// Two places, of which a micro-kernel asks for a line every few products.
class Ahead {
  public:
    Ahead(const void* first, Index first_bytes, const void* second, Index second_bytes)
        : at_(static_cast<const char*>(first)),
          end_(at_ + first_bytes),
          then_(static_cast<const char*>(second)),
          then_end_(then_ + second_bytes) {}

    // Where the next so many bytes lie; when all have been taken, some of the last again.
    const char* take(Index bytes) {
        if (at_ >= end_) {
            at_ = then_;
            end_ = then_end_;
            then_end_ = then_;
        }
        const char* from = at_;
        at_ += bytes;
        return from;
    }

  private:
    const char *at_, *end_, *then_, *then_end_;
};

}  // namespace
