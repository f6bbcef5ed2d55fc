"""A remote file gives the bytes that the server has, whatever the network does, or says clearly why it does not."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time

import pytest

from spectrum_fast.errors import CheckpointError
from spectrum_fast.read.storage import RemoteFile, open_stored_file, read_bytes, read_small_file
from spectrum_fast.read.storage.problems import RemoteReadError
from spectrum_fast.read.storage.remote_file import OPENING_BYTES

from support.file_server import Fault, FileServer
from support.processes import script

pytest.importorskip("obstore")

DATA = random.Random(0).randbytes(1_000_003)  # noqa: S311
PART = 1 << 16
AFTER = OPENING_BYTES + 1000  # bytes that were not read when the file was opened


@pytest.fixture
def address(server: FileServer) -> RemoteFile:
    server.objects["/models/m.safetensors"] = DATA
    return RemoteFile(f"{server.url}/models/m.safetensors")


def test_one_request_opens_a_file_and_reads_its_header(server, address):
    file = open_stored_file(address)
    assert file.stamp.size_bytes == len(DATA)
    assert read_bytes(file, 5000, 8) == DATA[8:5008]
    assert server.ranges() == [(0, OPENING_BYTES)]
    assert file.descriptor is None
    file.require_unchanged()
    file.close()
    file.close()


@pytest.mark.parametrize("begin", [0, 1, AFTER, len(DATA) - 70_000, len(DATA) - 1])
@pytest.mark.parametrize("count", [1, PART - 1, PART, PART + 1, 300_000, 2_000_000])
def test_every_byte_of_every_range(address, begin, count):
    file = open_stored_file(address)
    assert read_bytes(file, count, begin) == DATA[begin : begin + count]
    assert file.read_into(memoryview(bytearray(9)), len(DATA)) == 0
    file.close()


def test_large_reads_are_parallel_and_bounded(server, address, monkeypatch):
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_PARTS", "3")
    file = open_stored_file(address)
    server.delay_seconds = 0.1
    server.requests.clear()
    assert read_bytes(file, 10 * PART, AFTER) == DATA[AFTER : AFTER + 10 * PART]
    file.close()
    assert sorted(server.ranges()) == [(AFTER + i * PART, AFTER + (i + 1) * PART) for i in range(10)]
    assert server.most_at_once == 3


BREAKS = {
    "reset at once": Fault("reset", 0),
    "reset inside": Fault("reset", 20_000),
    "closed inside": Fault("short", 20_000),
    "fewer bytes": Fault("less", 20_000),
    "another range": Fault("misplaced"),
    "no answer": Fault("drop"),
    "stall inside": Fault("stall", 20_000),
    "stall before": Fault("hang"),
    "429": Fault("status", status=429),
    "500": Fault("status", status=500),
    "503": Fault("status", status=503),
    "504": Fault("status", status=504),
}


@pytest.mark.parametrize("send_etag", [True, False])
@pytest.mark.parametrize("name", BREAKS)
def test_breaks_are_overcome(server, address, name, send_etag):
    server.send_etag = send_etag
    file = open_stored_file(address)
    server.faults = [BREAKS[name]] * 3
    assert read_bytes(file, 4 * PART, AFTER) == DATA[AFTER : AFTER + 4 * PART]
    assert server.faults == []
    file.close()


@pytest.mark.parametrize("name", BREAKS)
def test_breaks_while_opening_are_overcome(server, address, name):
    server.faults = [BREAKS[name]]
    file = open_stored_file(address)
    assert file.stamp.size_bytes == len(DATA)
    assert read_bytes(file, 100, 0) == DATA[:100]
    file.close()


def test_a_broken_answer_is_continued_where_it_broke_off(server, address, monkeypatch):
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_PART_MIB", "4")
    data = server.objects["/models/m.safetensors"] = DATA * 4
    file = open_stored_file(address)
    server.requests.clear()
    server.faults = [Fault("short", 3_000_000)]
    assert read_bytes(file, 3_500_000, AFTER) == data[AFTER : AFTER + 3_500_000]
    first, second = server.ranges()
    assert first == (AFTER, AFTER + 3_500_000)
    assert second[0] >= AFTER + 2_000_000
    file.close()


@pytest.mark.parametrize("seed", range(4))
def test_random_faults_lose_nothing(server, address, seed):
    chance = random.Random(seed)  # noqa: S311
    kinds = [fault for name, fault in BREAKS.items() if not name.startswith("stall")]
    server.choose = lambda _: chance.choice(kinds) if chance.random() < 0.35 else None
    file = open_stored_file(address)
    for _ in range(3):
        begin = chance.randrange(len(DATA))
        assert read_bytes(file, 500_000, begin) == DATA[begin : begin + 500_000]
    file.close()


def test_retry_after_is_honoured(server, address):
    file = open_stored_file(address)
    server.faults = [Fault("status", status=429, headers=(("Retry-After", "1"),))] * 2
    started = time.monotonic()
    assert read_bytes(file, PART, AFTER) == DATA[AFTER : AFTER + PART]
    assert time.monotonic() - started > 0.9
    file.close()


def test_a_server_that_asks_for_too_long_a_wait_is_given_up_at_once(server, address, monkeypatch):
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_PATIENCE_SECONDS", "60")
    file = open_stored_file(address)
    server.choose = lambda _: Fault("status", status=503, headers=(("Retry-After", "3600"),))
    started = time.monotonic()
    with pytest.raises(RemoteReadError, match=r"503 Service Unavailable; the server asks to wait 3[56]\d\d s more"):
        read_bytes(file, PART, AFTER)
    assert time.monotonic() - started < 60
    file.close()


@pytest.mark.parametrize("name", ["503", "reset inside", "stall before"])
def test_what_stays_broken_is_given_up_with_a_reason(server, address, name, monkeypatch):
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_ATTEMPTS", "3")
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_STALL_SECONDS", "0.3")
    file = open_stored_file(address)
    server.requests.clear()
    server.choose = lambda _: BREAKS[name]
    with pytest.raises(RemoteReadError) as caught:
        read_bytes(file, PART, AFTER)
    message = str(caught.value)
    assert str(address) in message
    assert "3 attempts" in message
    assert {"503": "503 Service", "reset inside": "connection broke", "stall before": "stalled"}[name] in message
    assert "copy the checkpoint" in message
    assert len([span for span in server.ranges() if span[0] > 0]) == 3
    file.close()


def test_patience_bounds_the_whole_time(server, address, monkeypatch):
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_ATTEMPTS", "1000")
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_PATIENCE_SECONDS", "1")
    file = open_stored_file(address)
    server.choose = lambda _: Fault("status", status=500)
    with pytest.raises(RemoteReadError, match="500 Internal Server Error"):
        read_bytes(file, 100, AFTER)
    assert len(server.ranges()) < 1000
    file.close()


@pytest.mark.parametrize("send_etag", [True, False])
@pytest.mark.parametrize("grown", [True, False])
def test_a_file_that_changes_is_refused(server, address, send_etag, grown):
    server.send_etag = send_etag
    file = open_stored_file(address)
    assert read_bytes(file, PART, AFTER)
    server.objects["/models/m.safetensors"] = DATA + b"x" if grown else DATA[:-1]
    with pytest.raises(CheckpointError, match=r"m\.safetensors: the file was replaced or removed while being read"):
        read_bytes(file, PART, AFTER)
    with pytest.raises(CheckpointError, match="replaced or removed"):
        file.require_unchanged()
    file.close()


def test_other_bytes_of_the_same_length_are_refused_by_the_tag(server, address):
    file = open_stored_file(address)
    server.objects["/models/m.safetensors"] = bytes(len(DATA))
    with pytest.raises(CheckpointError, match="412 Precondition Failed"):
        read_bytes(file, PART, AFTER)
    file.close()


def test_a_change_between_two_tries_is_refused(server, address):
    file = open_stored_file(address)

    def change(_):
        server.objects["/models/m.safetensors"] = bytes(len(DATA))
        return Fault("reset", 10)

    server.choose = change
    with pytest.raises(CheckpointError, match="replaced or removed while being read"):
        read_bytes(file, PART, AFTER)
    file.close()


def test_a_file_that_vanishes_is_refused(server, address):
    file = open_stored_file(address)
    del server.objects["/models/m.safetensors"]
    with pytest.raises(CheckpointError, match=r"replaced or removed while being read \(404 Not Found"):
        read_bytes(file, 4 * PART, AFTER)
    file.close()


def test_a_server_that_ignores_ranges_is_refused(server, address):
    server.choose = lambda _: Fault("whole")
    with pytest.raises(CheckpointError, match=r"ignored the byte range.*serve it with a server that answers ranges"):
        open_stored_file(address)


def test_a_server_that_ignores_a_later_range_is_refused(server, address):
    file = open_stored_file(address)
    server.choose = lambda _: Fault("whole")
    with pytest.raises(CheckpointError, match="ignored the byte range"):
        read_bytes(file, PART, AFTER)
    file.close()


@pytest.mark.parametrize(("status", "words"), [(404, "404 Not Found; check the address"), (403, "403 Forbidden")])
def test_what_no_retry_mends_is_asked_once(server, address, status, words):
    server.choose = lambda _: Fault("status", status=status)
    with pytest.raises(CheckpointError, match=words):
        open_stored_file(address)
    assert len(server.requests) == 1


def test_nobody_listens(address, server, monkeypatch):
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_ATTEMPTS", "2")
    with pytest.raises(CheckpointError, match=r"127\.0\.0\.1:9/m\.safetensors: .*2 attempts.*connection"):
        open_stored_file(RemoteFile("http://127.0.0.1:9/m.safetensors"))


def test_an_empty_file(server):
    server.objects["/e.safetensors"] = b""
    with pytest.raises(CheckpointError, match="found an empty one"):
        open_stored_file(RemoteFile(f"{server.url}/e.safetensors"))


def test_small_files_come_in_one_request(server):
    server.objects["/config.json"] = b'{"a": 1}'
    address = RemoteFile(f"{server.url}/config.json")
    assert read_small_file(address, 100) == b'{"a": 1}'
    assert len(server.requests) == 1
    with pytest.raises(CheckpointError, match="at most 3 bytes, found more"):
        read_small_file(address, 3)
    with pytest.raises(CheckpointError, match=r"none\.json: cannot be read: 404"):
        read_small_file(RemoteFile(f"{server.url}/none.json"), 3)


def test_redirects_lead_to_the_file_and_carry_no_password_to_another_host(server):
    with FileServer({"/blob": DATA}) as other:
        server.redirects["/m.safetensors"] = f"http://localhost:{other.port}/blob?X-Signature=abc"
        file = open_stored_file(RemoteFile(f"http://me:s%40cret@127.0.0.1:{server.port}/m.safetensors"))
        assert read_bytes(file, PART, AFTER) == DATA[AFTER : AFTER + PART]
        assert all(request.headers["authorization"] == "Basic bWU6c0BjcmV0" for request in server.requests)
        assert other.requests
        assert not any("authorization" in request.headers for request in other.requests)
        file.close()


@pytest.mark.parametrize("kind", ["404", "403", "503", "whole", "reset", "412"])
def test_no_secret_in_any_message(server, kind, monkeypatch):
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_ATTEMPTS", "1")
    server.objects["/m.safetensors"] = DATA
    address = RemoteFile(f"http://me:s3cret@127.0.0.1:{server.port}/m.safetensors?sig=s3cret")
    fault = Fault("status", status=int(kind)) if kind.isdigit() else Fault(kind)
    server.choose = lambda _: fault
    with pytest.raises(CheckpointError) as caught:
        open_stored_file(address)
    assert f"http://127.0.0.1:{server.port}/m.safetensors" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(address)


def test_closing_ends_reads_in_other_threads(server, address, monkeypatch):
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_DELAY_SECONDS", "60")
    file = open_stored_file(address)
    server.choose = lambda _: Fault("status", status=500)
    failures = []

    def read() -> None:
        try:
            read_bytes(file, 6 * PART, AFTER)
        except OSError as error:
            failures.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.3)
    file.close()
    thread.join(50)
    assert not thread.is_alive()
    assert len(failures) == 1
    assert "closed" in failures[0]
    with pytest.raises(OSError, match="closed"):
        file.read_into(memoryview(bytearray(1)), 0)


@pytest.mark.parametrize("name", ["stall before", "stall inside", "503"])
@pytest.mark.parametrize("opened", [True, False])
def test_a_stop_signal_ends_opening_and_reading_at_once(server, address, monkeypatch, name, opened):
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_STALL_SECONDS", "60")
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_DELAY_SECONDS", "60")
    stop = threading.Event()
    file = open_stored_file(address, stop) if opened else None
    server.choose = lambda _: BREAKS[name]
    threading.Timer(0.5, stop.set).start()
    started = time.monotonic()
    with pytest.raises((OSError, CheckpointError), match="closed"):
        read_bytes(file or open_stored_file(address, stop), 6 * PART, AFTER)
    assert 0.3 < time.monotonic() - started < 60
    if file is not None:
        file.close()


def test_a_part_that_fails_does_not_wait_for_the_others(server, address, monkeypatch):
    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_STALL_SECONDS", "60")
    file = open_stored_file(address)
    server.faults = [Fault("hang"), Fault("hang"), Fault("status", status=403), Fault("hang")]
    started = time.monotonic()
    with pytest.raises(OSError, match="403 Forbidden"):
        read_bytes(file, 4 * PART, AFTER)
    assert time.monotonic() - started < 60
    file.close()


def test_no_thread_is_left(address):
    file = open_stored_file(address)
    read_bytes(file, 6 * PART, AFTER)
    file.close()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(t.name.startswith("spectrum-fast") for t in threading.enumerate()):
        time.sleep(0.01)
    assert not [t.name for t in threading.enumerate() if t.name.startswith("spectrum-fast")]


@pytest.mark.parametrize("text", ["0", "-1", "many", "nan", "inf"])
def test_settings_that_are_no_positive_number(address, text, monkeypatch):
    from spectrum_fast.errors import UsageError

    monkeypatch.setenv("SPECTRUM_FAST_REMOTE_PARTS", text)
    with pytest.raises(UsageError, match=f"SPECTRUM_FAST_REMOTE_PARTS: expected a positive number, found '{text}'"):
        open_stored_file(address)


def test_without_obstore_the_extra_is_named(address):
    command = [sys.executable, script("command_without"), "obstore", "scan", address.url]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr.strip().endswith("run pip install 'spectrum-fast[remote]'")
    assert done.returncode == 2
