"""The figures of docs/streaming.md are those of committed result files; the benchmark's parts do what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import reading_peers, streaming, streaming_table
from bench.make_checkpoint import write_checkpoint
from bench.markers import replace_between
from bench.results_file import read_results, write_results


def test_the_page_shows_the_committed_figures() -> None:
    page = streaming_table.PAGE.read_text(encoding="utf-8")
    tables = streaming_table.format_tables(streaming_table.result_files())
    assert page == replace_between(page, streaming_table.BEGIN, streaming_table.END, tables)


@pytest.mark.slow
def test_a_small_run_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    settings = {"like": "llama-3-8b", "layers": 1, "scale": 32, "embeddings": False}
    written = write_checkpoint(tmp_path / "model", **settings)
    rows = streaming.measure(written, 2, settings)
    names = [row["name"] for row in rows]
    assert {"read[plain, cold]", "read[ours, warm]", "read[safe_open, cold]", "compute", "scan[warm]"} <= set(names)
    for row in rows:
        assert row["median_seconds"] > 0
        assert streaming.describe(row).startswith(row["name"])
    scan = next(row for row in rows if row["name"] == "scan[warm]")
    bound = max(scan["info"]["read_seconds_alone"], scan["info"]["compute_seconds_alone"])
    assert scan["info"]["ratio_to_bound"] == pytest.approx(scan["median_seconds"] / bound)
    machine = streaming.machine_header()
    path = tmp_path / "streaming-test.json"
    write_results(path, {"schema": 1, "size": "small", "machine": machine, "rows": rows})
    table = streaming_table.format_table(read_results(path), path.name)
    assert "one of each shape, multiplied by their number" in table
    assert "whole scan, cold" in table
    assert streaming_table.format_tables([]) == streaming_table.NOT_MEASURED


def test_a_peer_that_is_not_there_or_does_not_run_is_skipped_with_a_reason(tmp_path: Path, capsys) -> None:
    written = write_checkpoint(tmp_path, like="llama-3-8b", layers=1, scale=32, embeddings=False)
    plans = streaming.plan_scan(streaming.open_checkpoint(written.path)).weights

    def broken(files: object) -> int:
        raise RuntimeError("no such device")

    peers = {"ghost": ("not-installed-at-all", broken), "broken": ("torch", broken)}
    rows = streaming.reading_rows(written.files, plans, 1, peers)
    assert not any("ghost" in row["name"] or "broken" in row["name"] for row in rows)
    out = capsys.readouterr().out
    assert "skipped: ghost: not-installed-at-all is not installed" in out
    assert "skipped: broken: does not run here: RuntimeError('no such device')" in out


@pytest.mark.parametrize("name", reading_peers.PEERS)
def test_peers_deliver_every_byte(name: str, tmp_path: Path) -> None:
    distribution, read = reading_peers.PEERS[name]
    if reading_peers.peer_version(distribution) is None:
        pytest.skip(f"{distribution} is not installed")
    written = write_checkpoint(tmp_path, like="llama-3-8b", layers=1, scale=64, embeddings=False)
    assert read(written.files) == written.total_bytes


def test_touching_counts_the_bytes() -> None:
    assert reading_peers.touch(torch.zeros(3, 5, dtype=torch.bfloat16)) == 30
