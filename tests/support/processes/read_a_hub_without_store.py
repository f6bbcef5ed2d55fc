"""Open a checkpoint of the hub that is never stored, and hash its files in two halves."""

import hashlib
import json
import sys
import urllib.request

from spectrum_fast.errors import SpectrumFastError
from spectrum_fast.read.checkpoint import open_checkpoint
from spectrum_fast.read.storage import open_stored_file, read_bytes

try:
    c = open_checkpoint(sys.argv[1], no_store=True)
    found = {"name": c.name, "notes": c.notes, "config": c.config, "files": [str(f) for f in c.files], "digests": {}}
    for f in c.files:
        file = open_stored_file(f)
        half = file.stamp.size_bytes // 2
        digest = hashlib.sha256(read_bytes(file, half, 0))
        if len(sys.argv) > 2:
            urllib.request.urlopen(sys.argv[2]).read()  # noqa: S310
        digest.update(read_bytes(file, file.stamp.size_bytes - half, half))
        found["digests"][f.name] = digest.hexdigest()
        found["stamp"] = repr(file.stamp)
        file.close()
except SpectrumFastError as error:
    found = {"error": str(error)}
print(json.dumps(found))
