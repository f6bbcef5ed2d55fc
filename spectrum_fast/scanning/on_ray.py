"""Weights scored by Ray, on this machine or on a cluster; the journal and the scan stay with the process that asked.

A task is a chunk of neighbouring weights. It opens the checkpoint itself and returns records of a few kilobytes, so
neither tensors nor plans pass through Ray's object store. A task whose worker or node is lost is started again by Ray.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import lru_cache
from typing import Any

from spectrum_fast.errors import BackendUnavailableError, RankError, SpectrumFastError
from spectrum_fast.measure.ops.dispatch import thread_count
from spectrum_fast.read.checkpoint import Checkpoint
from spectrum_fast.scanning.chunks import cut_chunks
from spectrum_fast.scanning.journal import Settings, describe_changes
from spectrum_fast.scanning.ledger import Ledger
from spectrum_fast.scanning.memory import explain_memory
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.scanning.plan import ScanPlan
from spectrum_fast.scanning.provenance import (
    SHARED_APART,
    common_identity,
    place_of,
    scan_identity,
    scan_settings,
    stored_options,
)
from spectrum_fast.scanning.results import ModuleResult
from spectrum_fast.scanning.scoring import make_scorer, open_and_plan, score_weights

_RETRIES = 20
"""How often Ray starts a task again whose worker is lost; one that ends its worker every time is an error at last."""
_LEAST_WORK = 1e9
"""Multiply-adds of a task, some hundredths of a second, beside which its start counts for little."""
_LOOK_SECONDS = 1.0
"""Time between two looks at how large the cluster is, at most."""


@contextmanager
def ray_session(address: str) -> Iterator[Any]:
    """Ray, while the context is open.

    Args:
        address: of a cluster (``auto``, ``HOST:PORT``, ``ray://...``), or ``local`` for workers on this machine alone;
            empty: the cluster that ``RAY_ADDRESS`` names, or one that runs here, or workers on this machine.

    Raises:
        BackendUnavailableError: Ray is not installed, or there is no cluster at the address.
    """
    token_files = os.environ.get("RAY_AUTH_TOKEN_PATH", ""), os.path.expanduser("~/.ray/auth_token")
    if any(map(os.path.exists, token_files)) or "RAY_AUTH_TOKEN" in os.environ:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # `ray start` asks for the token that is there; a driver has to
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as cause:
        raise BackendUnavailableError(
            "--ray: expected the package ray, found none; run pip install 'spectrum-fast[ray]'"
        ) from cause
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a thread that outlives the session must not begin another
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what a later version does, without the warning
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address or None, log_to_driver=False, logging_level="ERROR")
    except Exception as cause:  # Ray's errors have no base in common here
        raise BackendUnavailableError(
            f"ray: cannot {f'reach a cluster at {address}' if address else 'start'}: "
            f"{str(cause).strip().partition(chr(10))[0]}; start one (`ray start --head`), or say --ray local; where "
            "it asks for a token, put that into ~/.ray/auth_token or RAY_AUTH_TOKEN here too"
        ) from cause
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # which Ray has made its own
    try:
        with redirect_stdout(sys.stderr):  # where Ray would put its own words, about lost workers
            yield ray
    finally:
        ray.shutdown()


def score_on_ray(
    source: str | os.PathLike[str], checkpoint: Checkpoint, plan: ScanPlan, options: ScanOptions, ledger: Ledger
) -> None:
    """Score what is left of a plan into a ledger.

    Args:
        source: the checkpoint; all workers must see it, a local one under the same path.
        checkpoint: as this process sees it.
        plan: all there is to do.
        options: with the address of a cluster, or of none, as ``ray``.
        ledger: takes the results, as they come.

    Raises:
        RankError: a worker sees another checkpoint, or a task lost its worker too often.
        BackendUnavailableError: Ray or the cluster is not there, or has no place for these tasks.
        SpectrumFastError: what a task raised.
    """
    with ray_session(options.ray or "") as ray:
        _score_all(ray, place_of(source), _identity(options, checkpoint), plan, options, ledger)


def _score_all(
    ray: Any, place: str, identity: Mapping[str, Any], plan: ScanPlan, options: ScanOptions, ledger: Ledger
) -> None:
    threads = options.threads or 1
    on_gpu = options.device != "cpu"
    asked = json.dumps(stored_options(options) | {"device": "cuda" if on_gpu else "cpu"})
    task = ray.remote(num_cpus=threads, num_gpus=int(on_gpu), max_retries=_RETRIES)(_score_chunk)
    slots = _slots(ray, threads, on_gpu)
    if not slots:
        raise BackendUnavailableError(
            f"ray: expected a node with {threads} CPUs{' and a GPU' if on_gpu else ''} for a task, found none in the "
            "cluster; add one, or give fewer --threads"
        )
    left = [weight for weight in plan.weights if weight.name not in ledger]
    chunks = iter(cut_chunks(left, slots, least_work=_LEAST_WORK))
    running: dict[Any, str] = {}
    try:
        while True:
            while len(running) < 2 * slots and (chunk := next(chunks, None)) is not None:
                names = [weight.name for weight in chunk]
                running[task.remote(place, asked, identity, names)] = names[0]
            if not running:
                return
            if not ray.is_initialized():
                raise RankError("ray: the session has ended; finished modules are safe in the journal, if there is one")
            ledger.processes = min(len(running), slots)
            done, _ = ray.wait(list(running), num_returns=1, timeout=_LOOK_SECONDS)
            for reference in done:
                results, found_settings = _result_of(ray, reference, running.pop(reference))
                for result in results:
                    ledger.record(result, found_settings)
            slots = max(slots, _slots(ray, threads, on_gpu))  # nodes may join while the scan runs
    finally:
        for reference in running if ray.is_initialized() else ():
            ray.cancel(reference)


def _result_of(ray: Any, reference: Any, name: str) -> tuple[list[ModuleResult], Settings]:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SpectrumFastError):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:
        raise RankError(
            f"ray: the worker that scored {name} and its neighbours was lost {_RETRIES + 1} times: "
            f"{str(error).strip().partition(chr(10))[0]}; finished modules are safe in the journal, if there is one"
        ) from error


def _score_chunk(
    place: str, asked: str, identity: Mapping[str, Any], names: list[str]
) -> tuple[list[ModuleResult], Settings]:
    """One task: the weights of these names to what they come to."""
    plan, options, found_identity = _planned(place, asked)
    if changes := describe_changes(identity, found_identity):
        raise RankError(f"{socket.gethostname()}: {place} is not what the scan began with: {changes}")
    wanted = set(names)
    results: list[ModuleResult] = []
    with explain_memory(), thread_count(options.threads) as threads:
        weights = [weight for weight in plan.weights if weight.name in wanted]
        score_weights(weights, make_scorer(options, weights), options.stream, results.append)
        return results, scan_settings(options, threads)


@lru_cache(maxsize=4)
def _planned(place: str, asked: str) -> tuple[ScanPlan, ScanOptions, dict[str, Any]]:
    """Kept by a worker from task to task: what a fleet's small checkpoints need is read once each."""
    options = ScanOptions(**json.loads(asked))
    checkpoint, plan = open_and_plan(place, options)
    return plan, options, _identity(options, checkpoint)


def _identity(options: ScanOptions, checkpoint: Checkpoint) -> dict[str, Any]:
    return common_identity(scan_identity(options, checkpoint), SHARED_APART)


def _slots(ray: Any, threads: int, on_gpu: bool) -> int:
    """Tasks that the cluster can run at once."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return int(
        sum(min(node.get("CPU", 0) // threads, node.get("GPU", 0) if on_gpu else float("inf")) for node in alive)
    )
