"""Why a job ended, from what can be known outside."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from dpo_daemon import exits
from dpo_telemetry import events


def describe(returncode: int, **known: Any) -> str:
    defaults = {"killed_by_us": False, "oom_killed": False, "rank_says": "", "log_tail": ""}
    return exits.describe("node-1", returncode, **{**defaults, **known}).reason


def test_an_out_of_memory_kill_is_told_from_any_other() -> None:
    assert "ran out of memory" in describe(-signal.SIGKILL, oom_killed=True)
    assert "no out-of-memory kill" in describe(-signal.SIGKILL)
    assert describe(-signal.SIGKILL, killed_by_us=True, oom_killed=True).startswith("stopped")


def test_a_crash_is_named_by_its_signal() -> None:
    record = exits.describe(
        "node-1", -signal.SIGSEGV, killed_by_us=False, oom_killed=False, rank_says="", log_tail=""
    )
    assert (record.code, record.signal, record.reason) == (None, "SIGSEGV", "ended by SIGSEGV")


def test_the_ranks_own_word_comes_first_and_its_error_line_second() -> None:
    log = "loading\nerror: model.base: x: no such model\nExiting\n"
    assert describe(1, rank_says="alert nonfinite", log_tail=log) == "alert nonfinite"
    assert describe(2, log_tail=log) == "model.base: x: no such model"
    assert describe(1, log_tail="Traceback (most recent call last):\nValueError: no\n") == "ValueError: no"
    assert describe(3) == "exit code 3"
    assert describe(0) == "finished"


def test_what_a_rank_wrote_last_is_found_behind_heartbeats(tmp_path: Path) -> None:
    file = tmp_path / "rank-00000.jsonl"
    lines = [
        events.Exit(**events.stamp(), role="rank", rank=0, code=0, reason="stopped at step 7"),
        events.Heartbeat(**events.stamp()),
    ]
    file.write_bytes(b"".join(map(events.encode, lines)) + b'{"k":"torn')
    assert exits.reason_of_rank(file) == "stopped at step 7"
    assert exits.reason_of_rank(tmp_path / "missing") == ""


@pytest.mark.parametrize(("text", "count"), [("pgfault 5\noom_kill 3\n", 3), ("pgfault 5\n", 0), ("", 0)])
def test_the_kernels_count_of_kills_is_read_where_it_is_kept(tmp_path: Path, text: str, count: int) -> None:
    (tmp_path / "vmstat").write_text(text)
    assert exits.oom_kills(tmp_path / "vmstat") == count
    assert exits.oom_kills(tmp_path / "missing") == 0
