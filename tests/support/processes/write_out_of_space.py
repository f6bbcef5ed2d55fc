"""Write more than the file system takes; print the error."""

import resource
import sys

from spectrum_fast.errors import ScanFileError
from spectrum_fast.files import write_text_atomic

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_text_atomic(sys.argv[1], "x" * 100_000, error=ScanFileError)
except ScanFileError as error:
    print(error)
