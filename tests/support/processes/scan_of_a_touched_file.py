"""``scan FOLDER ...``: the command line, which sees the time of its file changed once three modules are scored."""

import os
import sys

from spectrum_fast.read.stream import options, weights
from spectrum_fast.scanning.step import ScanProgress
from spectrum_fast.use.cli import main
from spectrum_fast.use.report.progress import ScanMeter

weights.STRETCH_BYTES = options.AUTO_WINDOW_BYTES = 1  # or all of the small file were read at once
show = ScanMeter.__call__


def touch(meter: ScanMeter, step: ScanProgress) -> None:
    show(meter, step)
    if step.done == 3:
        os.utime(f"{sys.argv[2]}/model.safetensors")


ScanMeter.__call__ = touch  # type: ignore[method-assign]
main()
