"""A real S3-protocol server (moto's) on loopback, and the environment that leads to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

SECRET = "s3cret-on-loopback"  # noqa: S105 (no secret: moto takes anything)


@contextmanager
def serve_s3() -> Iterator[str]:
    """Serve S3 on loopback; gives the endpoint. Skips the test where moto is not installed."""
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def use_s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set the variables that lead to the endpoint; gives boto3's resource to fill it with."""
    boto3 = pytest.importorskip("boto3")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "NO_PROXY": "127.0.0.1,localhost",
    }.items():
        monkeypatch.setenv(name, value)
    return boto3.resource("s3", endpoint_url=endpoint, region_name="us-east-1")
