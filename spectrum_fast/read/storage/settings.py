"""How remote files are read: how much at once, and how patiently. Every value has an environment variable."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from spectrum_fast.errors import UsageError


@dataclass(frozen=True)
class RemoteSettings:
    """Bounds on requests for remote files.

    Attributes:
        part_bytes: a read is split into requests of at most this size (``SPECTRUM_FAST_REMOTE_PART_MIB``).
        parts_in_flight: most requests at the same time, over all files (``SPECTRUM_FAST_REMOTE_PARTS``).
        attempts: tries of one part; each goes on where the one before it broke off (``SPECTRUM_FAST_REMOTE_ATTEMPTS``).
        patience_seconds: no new try of a part begins later than this after its first one, and no wait that a server
            asks for may lead past it (``SPECTRUM_FAST_REMOTE_PATIENCE_SECONDS``).
        stall_seconds: a connection on which nothing comes for so long is given up
            (``SPECTRUM_FAST_REMOTE_STALL_SECONDS``).
        delay_seconds: longest wait before the second try; doubled for every further one up to 32 times, the wait itself
            is drawn between half of that and all of it (``SPECTRUM_FAST_REMOTE_DELAY_SECONDS``).
    """

    part_bytes: int = 8 << 20
    parts_in_flight: int = 8
    attempts: int = 8
    patience_seconds: float = 180.0
    stall_seconds: float = 30.0
    delay_seconds: float = 0.5


def remote_settings() -> RemoteSettings:
    """Take the settings from the environment, and the defaults for what is not set there.

    Raises:
        UsageError: a variable holds no positive number.
    """
    default = RemoteSettings()
    return RemoteSettings(
        part_bytes=max(1, round(_positive("PART_MIB", default.part_bytes / (1 << 20)) * (1 << 20))),
        parts_in_flight=max(1, round(_positive("PARTS", default.parts_in_flight))),
        attempts=max(1, round(_positive("ATTEMPTS", default.attempts))),
        patience_seconds=_positive("PATIENCE_SECONDS", default.patience_seconds),
        stall_seconds=_positive("STALL_SECONDS", default.stall_seconds),
        delay_seconds=_positive("DELAY_SECONDS", default.delay_seconds),
    )


def _positive(name: str, default: float) -> float:
    variable = f"SPECTRUM_FAST_REMOTE_{name}"
    text = os.environ.get(variable)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 < value < 1e9):
        raise UsageError(f"{variable}: expected a positive number, found {text!r}")
    return value
