"""What measures the proxy: only whole replies count, and a server that fails is no fast server."""

from __future__ import annotations

import subprocess
import sys

import pytest

from elision.evaluation.benches.proxy import targets
from elision.evaluation.proxying.client import Load
from elision.evaluation.proxying.processes import (
    Server,
    client,
    elision,
    running,
    upstream,
    wait_for,
)
from elision.evaluation.proxying.script import MODEL, events, says, words


def test_a_reply_counts_only_if_it_is_whole() -> None:
    page = b"".join(events(20))

    assert says(page, 20)
    assert says(page.replace(b'"content":" the"', b'"content":" t"}}{"content": "he"'), 20)
    assert not says(page, 19)
    assert not says(page.replace(b" boat", b" bo", 1), 20)
    assert not says(page.replace(b"[DONE]", b""), 20)


def test_no_target_of_the_bench_is_in_its_reply() -> None:
    phrases = [target["phrases"][0] for target in targets(1000)]

    assert len(set(phrases)) == 1000
    assert not any(phrase in "".join(words(64)) for phrase in phrases)


@pytest.mark.slow
def test_a_client_process_times_the_pace_of_the_upstream() -> None:
    with upstream(n_pieces=8, gap_ms=10) as far, client() as asking:
        before = far.cpu_s()
        load = Load(url=far.url, model=MODEL, n_streams=4, seconds=0.6, think_ms=20, n_pieces=8)
        seen = asking.run(load)

        assert not seen.errors
        assert len(seen.total_ms) == len(seen.first_ms) >= 4
        assert min(seen.total_ms) >= 8 * 10
        assert max(seen.first_ms) < min(seen.total_ms)
        assert far.cpu_s() >= before
        assert 5 < far.rss_mb() < 500


@pytest.mark.slow
def test_what_is_no_whole_reply_is_an_error_of_its_kind() -> None:
    with upstream(n_pieces=4, gap_ms=1) as far, client() as asking:
        longer = Load(url=far.url, model=MODEL, n_streams=1, seconds=0.1, think_ms=10, n_pieces=5)
        assert set(asking.run(longer).errors) == {"not the whole reply"}
        nobody = Load(
            url="http://127.0.0.1:1/v1", model=MODEL, n_streams=1, seconds=0.1, think_ms=10,
            n_pieces=4,
        )  # fmt: skip
        assert set(asking.run(nobody).errors) == {"no answer"}


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["passthrough", "guarded"])
def test_the_server_of_the_bench_says_what_its_upstream_says(profile: str) -> None:
    with (
        upstream(n_pieces=16, gap_ms=1) as far,
        elision(far, profile=profile) as ours,
        client() as asking,
    ):
        if profile == "guarded":
            ours.post("/forget/batch", {"targets": targets(20)})
        load = Load(url=ours.url, model=MODEL, n_streams=8, seconds=1, think_ms=20, n_pieces=16)
        seen = asking.run(load)

        assert not seen.errors
        assert len(seen.total_ms) >= 8


@pytest.mark.slow
def test_a_process_is_gone_behind_its_block() -> None:
    with running([sys.executable, "-c", "input()"]) as process:
        assert isinstance(process, subprocess.Popen)
        assert process.poll() is None
    assert process.poll() is not None
    assert Server(process, "http://127.0.0.1:1").url == "http://127.0.0.1:1/v1"
    assert not wait_for("http://127.0.0.1:1/", seconds=0.1)
