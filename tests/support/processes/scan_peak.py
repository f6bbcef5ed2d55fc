"""Scan a checkpoint by a method; print the most memory that took."""

import sys

import spectrum_fast as sf


def resident(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


scan = sf.scan(sys.argv[1], method=sys.argv[2])
assert len(scan.modules) == int(sys.argv[3]), len(scan.modules)
print(resident("VmHWM"))
