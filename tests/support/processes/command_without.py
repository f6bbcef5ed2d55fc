"""``MODULE,MODULE... COMMAND``: the command line as it runs where these modules are not installed."""

import importlib
import sys

sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(",")))  # type: ignore[arg-type]
importlib.import_module("spectrum_fast.use.cli").main()
