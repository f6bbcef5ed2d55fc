"""``COMMAND...``: run it with a terminal for its output; end with its exit code."""

import pty
import sys

sys.exit(pty.spawn(sys.argv[1:]) >> 8)
