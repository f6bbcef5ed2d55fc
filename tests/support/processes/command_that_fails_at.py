"""``PARAMETER COMMAND``: the command line with an error in decoding this parameter that nobody foresaw."""

import sys
from typing import Any

from spectrum_fast.scanning import results
from spectrum_fast.use.cli import main

victim, decode = sys.argv.pop(1), results.decode_weight


def fails(plan: Any, *more: Any) -> Any:
    if plan.parameter == victim:
        raise ZeroDivisionError("division by zero")
    return decode(plan, *more)


results.decode_weight = fails
main()
