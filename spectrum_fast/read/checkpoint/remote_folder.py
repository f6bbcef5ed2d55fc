"""Which files a remote folder has: by listing it where the protocol can, else by asking for the standard names."""

from __future__ import annotations

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.checkpoint.folder import Folder
from spectrum_fast.read.checkpoint.index import read_index
from spectrum_fast.read.checkpoint.layout import STANDARD_FILE, STANDARD_INDEX
from spectrum_fast.read.storage.address import RemoteFile
from spectrum_fast.read.storage.network import Stop
from spectrum_fast.read.storage.problems import RemoteProblem, problem_of
from spectrum_fast.read.storage.ranges import RangeReader
from spectrum_fast.read.storage.remote_file import explained, refusal
from spectrum_fast.read.storage.settings import remote_settings
from spectrum_fast.read.storage.transport import open_store, target_of

MAX_NAMES = 100_000
"""Most files that a listed folder may have; checkpoints have some hundreds."""


def list_bucket(address: RemoteFile) -> Folder:
    """List one folder of a bucket, not those below it.

    Args:
        address: ``s3://bucket/folder/`` or ``gs://bucket/folder/``.

    Raises:
        CheckpointError: no such bucket, no right to list it, or not reachable.
    """
    settings = remote_settings()
    store, prefix = open_store(target_of(address), settings, retries=settings.attempts)
    try:
        found = store.list_with_delimiter(prefix.rstrip("/") or None)
    except Exception as error:  # obstore's errors have no base that covers all of them
        raise refusal(address, problem_of(error)) from error
    names = tuple(entry["path"].rpartition("/")[2] for entry in found["objects"])
    if len(names) > MAX_NAMES:
        raise refusal(address, RemoteProblem("refused", f"the folder has more than {MAX_NAMES} files"))
    return Folder(address, names)


def probe_web_folder(address: RemoteFile) -> Folder:
    """Find a checkpoint's files on a web server, which cannot list a folder, by their standard names.

    ``model.safetensors`` goes before an index, as everywhere; the shards that an index names are taken to be there
    until they are read.

    Args:
        address: ``https://host/folder/``.

    Raises:
        CheckpointError: neither of them is there, the index is broken, or the server does not answer.
    """
    names: list[str] = []
    absent: list[str] = []
    for name in (STANDARD_FILE, STANDARD_INDEX):
        if absence := _absence(address.sibling(name)):
            absent.append(absence)
        else:
            names.append(name)
            break
    if not names:
        raise CheckpointError(
            f"{address}: expected {STANDARD_FILE} or {STANDARD_INDEX} in it, found neither ({', '.join(absent)}); a "
            "web server's folder cannot be listed: pass the address of a .safetensors file, or use the standard names"
        )
    if names[0] == STANDARD_INDEX:
        names += sorted(set(read_index(address.sibling(STANDARD_INDEX)).values()))
    if not _absence(address.sibling("config.json")):
        names.append("config.json")
    return Folder(address, tuple(names), ("a web server's folder cannot be listed: files were asked for by name",))


def _absence(address: RemoteFile) -> str:
    """Ask for a byte: what says that the file is not there, or nothing. Servers that hide what is missing say 403."""
    with explained(address):
        try:
            RangeReader(address).read(memoryview(bytearray(1)), 0, None, Stop())
        except RemoteProblem as problem:
            if problem.kind == "missing" or problem.words.startswith("403"):
                return f"{address.name}: {problem.words}"
            if problem.kind not in ("no ranges", "changed"):  # there, and whoever reads it says what is wrong with it
                raise
    return ""
