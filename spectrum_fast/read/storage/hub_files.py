"""Files of a hub repository by their commit, read where the hub says they lie.

The hub answers for a large file with a signed address of its content network. Ranges are asked for there: the token
goes to the hub alone, and the hub is asked once a file, not once a range. When the signature has run out, it is asked
again.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.storage.address import RemoteFile
from spectrum_fast.read.storage.problems import problem_of_status
from spectrum_fast.read.storage.stored_file import RemoteStamp, Target


def resolve_hub_file(address: RemoteFile) -> Target:
    """Ask the hub where a file lies.

    Returns:
        The address to read from; its stamp has the commit, the hub's entity tag (of a large file: its SHA-256) and the
        size that the hub gives.

    Raises:
        CheckpointError: the hub does not have the file, does not let us read it, or cannot be reached.
    """
    from huggingface_hub import errors, get_hf_file_metadata, get_token, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    repository, _, rest = address.url.removeprefix("hf://").partition("@")
    commit, _, name = rest.partition("/")
    token = get_token() or False
    url = hf_hub_url(repository, name, revision=commit)
    try:
        found = get_hf_file_metadata(url, token=token, retry_on_errors=True)
    except (errors.EntryNotFoundError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise CheckpointError(
            f"{address}: the hub does not have it or does not let you see it; check the name, accept the model's "
            "licence on its page, or log in with `hf auth login`"
        ) from error
    # The HTTP library's errors have no base in common, and their text may hold addresses: the status says enough.
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        words = problem_of_status(status).words if isinstance(status, int) else type(error).__name__
        raise CheckpointError(f"{address}: the hub cannot be asked ({words}); check the connection") from error
    if found.size is None or not found.location.startswith(("http://", "https://")):
        raise CheckpointError(f"{address}: the hub gives no size or no place for it; download it instead")
    if found.commit_hash not in (None, commit):
        raise CheckpointError(f"{address}: the hub answers for another commit, {found.commit_hash}; scan again")
    headers: dict[str, str] = {}
    if urlsplit(found.location)[:2] == urlsplit(url)[:2]:
        headers = {name: value for name, value in build_hf_headers(token=token).items() if name == "authorization"}
    return Target(found.location, headers, RemoteStamp(found.size, found.etag or "", "", commit))
