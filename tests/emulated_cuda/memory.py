"""Bytes on the device: alive now, the most there were, and how many there may be."""

from __future__ import annotations

import threading

import torch


class Ledger:
    """Storages that some tensor of the device still refers to.

    What an operation allocates inside itself is not seen.
    """

    def __init__(self) -> None:
        self.limit: int | None = None
        self.alive = self.most = 0
        self._references: dict[int, int] = {}
        self._lock = threading.RLock()  # a tensor may be collected while one is made

    def hold(self, host: torch.Tensor) -> None:
        """One more tensor refers to a storage.

        Raises:
            torch.OutOfMemoryError: the storage is new and there is no room for it.
        """
        storage = host.untyped_storage()
        with self._lock:
            key = storage._cdata
            if key not in self._references:
                if self.limit is not None and self.alive + storage.nbytes() > self.limit:
                    raise torch.OutOfMemoryError(
                        f"CUDA out of memory. Tried to allocate {storage.nbytes()} bytes; {self.alive} of "
                        f"{self.limit} are in use (emulated)"
                    )
                self._references[key] = 0
                self.alive += storage.nbytes()
                self.most = max(self.most, self.alive)
            self._references[key] += 1

    def release(self, host: torch.Tensor) -> None:
        """One fewer."""
        storage = host.untyped_storage()
        with self._lock:
            key = storage._cdata
            self._references[key] -= 1
            if not self._references[key]:
                del self._references[key]
                self.alive -= storage.nbytes()

    def holds(self, key: int) -> bool:
        """Whether a tensor of the device refers to this storage."""
        return key in self._references

    def forget_the_most(self) -> None:
        """Begin anew to look for the most."""
        self.most = self.alive


LEDGER = Ledger()
