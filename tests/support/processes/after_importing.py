"""Import modules (``NAME:A,B``: and names of theirs); print the modules that this loads, and its pages."""

import importlib
import json
import sys

for argument in sys.argv[1:]:
    name, _, names = argument.partition(":")
    module = importlib.import_module(name)
    for public in filter(None, names.split(",")):
        getattr(module, public)
with open("/proc/self/statm") as file:
    pages = int(file.read().split()[0])
print(json.dumps({"modules": sorted(sys.modules), "pages": pages}))
