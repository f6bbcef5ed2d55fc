// Any processor.
#include "decode_loops.hpp"

extern constexpr DecodeIsa decode_portable{"portable", bytes_plain, nibbles_plain, group_plain};
