"""Scan a checkpoint in a buffer of 16 MiB; print the most memory that took."""

import sys

import spectrum_fast as sf

scan = sf.scan(sys.argv[1], buffer_gib=1 / 64)
assert len(scan.modules) == int(sys.argv[2]), scan.failures
assert scan.run["buffer_peak_bytes"] <= scan.run["buffer_bytes"] == 16 << 20, scan.run
with open("/proc/self/status") as lines:
    print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024)
