"""How remote files are read: how much at once, and how patiently. Every value has an environment variable."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from typing import Any

from spectrum_fast.errors import UsageError


@dataclass(frozen=True)
class RemoteSettings:
    """Bounds on requests for remote files.

    Each has an environment variable: ``SPECTRUM_FAST_REMOTE_`` and its name, ``SPECTRUM_FAST_REMOTE_PART_MIB``.

    Attributes:
        part_mib: a read is split into requests of at most so many MiB.
        parts: most requests at the same time, over all files.
        attempts: tries of one part; each goes on where the one before it broke off.
        patience_seconds: no new try of a part begins later than this after its first one, and no wait that a server
            asks for may lead past it.
        stall_seconds: a connection on which nothing comes for so long is given up.
        delay_seconds: longest wait before the second try; doubled for every further one up to 32 times, the wait itself
            is drawn between half of that and all of it.
    """

    part_mib: float = 8.0
    parts: int = 8
    attempts: int = 8
    patience_seconds: float = 180.0
    stall_seconds: float = 30.0
    delay_seconds: float = 0.5

    @property
    def part_bytes(self) -> int:
        """Bytes of the largest request."""
        return max(1, round(self.part_mib * (1 << 20)))


def remote_settings() -> RemoteSettings:
    """Take the settings from the environment, and the defaults for what is not set there.

    Raises:
        UsageError: a variable holds no positive number.
    """
    defaults = asdict(RemoteSettings())
    return RemoteSettings(**{name: _from_environment(name, default) for name, default in defaults.items()})


def _from_environment(name: str, default: Any) -> Any:
    variable = f"SPECTRUM_FAST_REMOTE_{name.upper()}"
    text = os.environ.get(variable)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 < value < 1e9):
        raise UsageError(f"{variable}: expected a positive number, found {text!r}")
    return max(1, round(value)) if isinstance(default, int) else value
