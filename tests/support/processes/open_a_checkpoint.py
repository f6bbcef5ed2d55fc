"""Open a checkpoint; print what it is, or the error."""

import json
import sys

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint import open_checkpoint

try:
    c = open_checkpoint(sys.argv[1])
except CheckpointError as error:
    print(json.dumps({"error": str(error)}))
else:
    print(json.dumps({"name": c.name, "tensors": [r.name for r in c.tensors], "notes": c.notes, "config": c.config}))
