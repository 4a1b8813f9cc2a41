"""Why a job ended, from what can be known outside."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from dpo_daemon import exits
from dpo_daemon.exits import Evidence
from dpo_daemon.ranks import RankRecord, read_failures, read_ranks
from dpo_telemetry import events
from dpo_telemetry.events import SCHEMA_VERSION
from dpo_telemetry.identity import ProcessIdentity
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.rundir.layout import Attempt

TORCHRUN = """\
W1124 10:00:01 torch/distributed/elastic/multiprocessing/api.py:1016] Sending process 11 closing signal SIGTERM
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
dpo_trainer FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-11-24_10:00:02
  host      : node-1
  rank      : 0 (local_rank: 0)
  exitcode  : 70 (pid: 11)
  error_file: <N/A>
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-24_10:00:01
  host      : node-1
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 12)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 12
============================================================
"""


def told(code: int, reason: str, t: float) -> events.Exit:
    return events.Exit(v=SCHEMA_VERSION, t=t, m=t, role="rank", code=code, reason=reason)


def rank(number: int, exit_: events.Exit | None = None, *, last_seen_s: float = 0.0) -> RankRecord:
    """A rank that began; without an exit event it vanished after `last_seen_s`."""
    return RankRecord(number, ProcessIdentity("boot", 10 + number, 0.0), last_seen_s, exit_)


def describe(returncode: int, *ranks: RankRecord, **known: Any) -> HostExit:
    defaults = {"stops": 0, "oom_killed": False, "is_rank": len(ranks) < 2}
    found = {**defaults, **known}
    return exits.describe(Evidence("node-1", returncode, ranks=ranks or [RankRecord(0)], **found))


def outcome(ended: HostExit) -> tuple[int | None, str, str]:
    return ended.code, ended.signal, ended.reason


def test_an_out_of_memory_kill_is_told_from_any_other() -> None:
    assert "ran out of memory" in describe(-signal.SIGKILL, oom_killed=True).reason
    assert "no out-of-memory kill" in describe(-signal.SIGKILL).reason
    assert describe(-signal.SIGKILL, stops=2, oom_killed=True).reason.startswith("stopped")


def test_a_crash_is_named_by_its_signal() -> None:
    assert outcome(describe(-signal.SIGSEGV)) == (None, "SIGSEGV", "ended by SIGSEGV")
    assert outcome(describe(-signal.SIGSEGV, rank(0, told(0, "finished", 9.0))))[1] == "SIGSEGV"


def test_the_ranks_own_word_comes_first_and_its_error_line_second() -> None:
    log = ["loading\nerror: model.base: x: no such model\nExiting\n"]
    said = rank(0, told(1, "alert nonfinite", 9.0))
    assert outcome(describe(1, said, rank_says=log)) == (1, "", "alert nonfinite")
    assert outcome(describe(2, rank_says=log)) == (2, "", "model.base: x: no such model")
    assert (
        describe(1, rank_says=["Traceback (most recent call last):\nValueError: no\n"]).reason
        == "ValueError: no"
    )
    assert outcome(describe(3)) == (3, "", "exit code 3")
    assert outcome(describe(0)) == (0, "", "finished")


def test_a_stop_before_anything_began_is_a_stop() -> None:
    assert describe(0, stops=1).reason.startswith("stopped")
    assert describe(-signal.SIGTERM, stops=1).reason.startswith("stopped")
    assert outcome(describe(1, RankRecord(0), RankRecord(1), stops=1))[::2] == (0, exits.STOPPED_EARLY)


def test_torchruns_own_code_does_not_make_a_clean_stop_a_failure() -> None:
    ranks = [rank(n, told(0, "stopped at step 7", 9.0 + n)) for n in (0, 1)]
    assert outcome(describe(1, *ranks, stops=1)) == (0, "", "stopped at step 7")


def test_the_rank_that_failed_first_is_the_cause_and_its_code_the_jobs() -> None:
    ranks = [rank(0, told(70, "RuntimeError: connection reset", 9.2)), rank(1, told(2, "no such file", 9.1))]
    assert outcome(describe(1, *ranks)) == (2, "", "rank 1: no such file")


def test_what_all_ranks_say_alike_is_said_once() -> None:
    ranks = [rank(n, told(1, "alert nonfinite", 9.0 + n)) for n in (0, 1)]
    assert describe(1, *ranks).reason == "alert nonfinite"


def test_a_rank_that_was_killed_is_the_cause_of_those_that_fail_after_it() -> None:
    ranks = [rank(0, told(70, "RuntimeError: connection reset", 9.2)), rank(1, last_seen_s=9.0)]
    code, name, reason = outcome(describe(1, *ranks, launcher_says=TORCHRUN))
    assert (code, name) == (None, "SIGKILL")
    assert reason.startswith("rank 1: killed (SIGKILL) from outside")


def test_a_rank_that_torchrun_killed_after_its_grace_is_not_the_cause() -> None:
    ranks = [rank(0, told(70, "ValueError: no", 9.0)), rank(1, last_seen_s=39.0)]
    found = Evidence("node-1", 1, 0, False, ranks, is_rank=False, launcher_says=TORCHRUN.split("Root")[0])
    assert exits.describe(found).reason == "rank 0: ValueError: no"
    assert exits.rank_died(found, exits.rank_ends(found)) is None


def test_a_rank_that_nobody_saw_die_is_named() -> None:
    ranks = [rank(0, told(70, "RuntimeError: connection reset", 9.2)), rank(1, last_seen_s=9.0)]
    assert outcome(describe(1, *ranks))[::2] == (None, "rank 1: gone without a word; nobody saw how it ended")


def test_a_killed_launcher_is_told_with_what_became_of_the_ranks() -> None:
    ranks = [rank(n, told(0, "stopped at step 7", 9.0)) for n in (0, 1)]
    code, name, reason = outcome(describe(-signal.SIGKILL, *ranks))
    assert (code, name) == (None, "SIGKILL")
    assert "the launcher was killed (SIGKILL) from outside" in reason
    assert reason.endswith("the ranks then ended: stopped at step 7")


def test_a_launcher_that_fails_before_any_rank_is_told_by_its_own_last_line() -> None:
    says = "Traceback (most recent call last):\nModuleNotFoundError: No module named 'torch'\n"
    ended = describe(1, RankRecord(0), RankRecord(1), launcher_says=says)
    assert outcome(ended) == (1, "", "ModuleNotFoundError: No module named 'torch'")


def test_the_alert_of_a_dead_rank_names_it_and_its_signal() -> None:
    ranks = [rank(0, told(70, "RuntimeError: connection reset", 9.2)), rank(1, last_seen_s=9.0)]
    found = Evidence("node-1", 1, 0, True, ranks, is_rank=False, launcher_says=TORCHRUN)
    alert = exits.rank_died(found, exits.rank_ends(found))
    assert alert is not None
    assert (alert.code, alert.severity, alert.count) == ("rank_died", "critical", 1)
    assert "rank 1 died: killed (SIGKILL) by the kernel" in alert.message


def test_what_torchrun_prints_of_failed_ranks_is_read() -> None:
    failures = read_failures(TORCHRUN)
    assert (failures.codes, failures.first) == ({0: 70, 1: -9}, 1)
    nothing = read_failures("no such words\n")
    assert (nothing.codes, nothing.first) == ({}, None)


def test_what_a_rank_wrote_last_is_found_behind_heartbeats(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path / "001")
    attempt.events_dir.mkdir(parents=True)
    beat = events.Heartbeat(**events.stamp())
    lines = [told(0, "stopped at step 7", 9.0), beat]
    attempt.event_file("rank-00000").write_bytes(b"".join(map(events.encode, lines)) + b'{"k":"torn')
    first, second = read_ranks(attempt, 2)
    assert first.exit is not None
    assert (first.exit.reason, first.last_seen_s) == ("stopped at step 7", beat.t)
    assert (second.rank, second.process, second.exit) == (1, None, None)


@pytest.mark.parametrize(("text", "count"), [("pgfault 5\noom_kill 3\n", 3), ("pgfault 5\n", 0), ("", 0)])
def test_the_kernels_count_of_kills_is_read_where_it_is_kept(tmp_path: Path, text: str, count: int) -> None:
    (tmp_path / "vmstat").write_text(text)
    assert exits.oom_kills(tmp_path / "vmstat") == count
    assert exits.oom_kills(tmp_path / "missing") == 0
