"""Read a scan file, show it and select from it; print whether that has loaded torch."""

import sys

import spectrum_fast as sf

scan = sf.load_scan(sys.argv[1])
repr(scan)
scan.to_frame()
scan.select(50, criterion="alpha")
print("torch" in sys.modules)
