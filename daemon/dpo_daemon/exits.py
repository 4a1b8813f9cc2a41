"""Why a job ended, told as far as it can be known from outside."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dpo_daemon.ranks import Failures, RankRecord, read_failures, read_ranks, tail
from dpo_telemetry import events
from dpo_telemetry.identity import host_name
from dpo_telemetry.rundir.create import write_atomically
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.rundir.layout import Attempt
from dpo_telemetry.text import printable

REASON_LIMIT = 300
"""Characters."""
GONE = "the agent and the job are gone without a word: killed, or the host was restarted"
"""Why an attempt ended whose processes left nothing behind."""
STOPPED_EARLY = "stopped before the ranks began"


@dataclass(frozen=True)
class Evidence:
    """What is left of a job that has ended."""

    host: str
    returncode: int
    """Of what the agent started, as `subprocess` gives it: negative for a signal."""
    stops: int
    """How often the agent was asked to end the job; the second time it kills."""
    oom_killed: bool
    """Whether the kernel killed for want of memory in the meantime."""
    ranks: Sequence[RankRecord]
    is_rank: bool
    """Whether what the agent started is the only rank itself."""
    launcher_says: str = ""
    """The end of the launcher's output."""
    rank_says: Sequence[str] = ()
    """The end of each rank's output."""


@dataclass(frozen=True)
class RankEnd:
    """How one rank ended; neither code nor signal where nobody saw it."""

    record: RankRecord
    code: int | None
    signal: str
    reason: str

    @property
    def rank(self) -> int:
        """Its number."""
        return self.record.rank

    @property
    def failed(self) -> bool:
        """Whether it did not end as a rank should."""
        return self.code != 0

    @property
    def died(self) -> bool:
        """Whether it vanished from the middle of its work."""
        return (
            self.failed
            and self.record.exit is None
            and (self.record.process is not None or self.signal != "")
        )


def oom_kills(vmstat: Path = Path("/proc/vmstat")) -> int:
    """Processes that the kernel has killed for want of memory since boot; 0 where it does not count."""
    with contextlib.suppress(OSError, ValueError):
        for line in vmstat.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def collect(
    attempt: Attempt, host: str, returncode: int, *, stops: int, oom_killed: bool, ranks: int, is_rank: bool
) -> Evidence:
    """Everything that an attempt's files say of the end of its job on this host."""
    return Evidence(
        host=host,
        returncode=returncode,
        stops=stops,
        oom_killed=oom_killed,
        ranks=read_ranks(attempt, ranks),
        is_rank=is_rank,
        launcher_says="" if is_rank else tail(attempt.launcher_log(host)),
        rank_says=[tail(attempt.log_file(rank)) for rank in range(ranks)],
    )


def rank_ends(found: Evidence) -> list[RankEnd]:
    """How each rank ended: by its own word, else by what its launcher saw."""
    failures = read_failures(found.launcher_says)
    return [_rank_end(found, failures, record) for record in found.ranks]


def describe(found: Evidence) -> HostExit:
    """The end of a job as one record."""
    ends = rank_ends(found)
    name = _signal_name(found.returncode)
    if _killed_by_us(found, ends):
        return _host_exit(found, None, name or "SIGKILL", f"stopped: killed ({name or 'SIGKILL'}) as asked")
    began = [end for end in ends if end.record.process is not None]
    if name and not found.is_rank:
        told = f"; the ranks then ended: {ends[0].reason}" if began else ""
        reason = f"the launcher was {_signal_reason(name, found.oom_killed)}{told}"
        return _host_exit(found, None, name, reason)
    cause = first_failure(found, ends)
    if cause is not None:
        return _host_exit(found, cause.code, cause.signal, _named(cause, ends))
    if began:
        return _host_exit(found, 0, "", ends[0].reason)
    if found.stops:
        return _host_exit(found, 0, "", STOPPED_EARLY)
    said = _last_error(found.launcher_says) or f"exit code {found.returncode}"
    return _host_exit(found, found.returncode, "", "finished" if found.returncode == 0 else said)


def first_failure(found: Evidence, ends: Sequence[RankEnd]) -> RankEnd | None:
    """The rank that failed first; the others mostly fail a moment later for want of it.

    A rank that vanished comes before one that told of its end later than the vanished one's last sign of
    life; of those that vanished, the one that the launcher missed first.
    """
    missed_first = 0 if found.is_rank else read_failures(found.launcher_says).first
    told = [(end.record.exit.t, end) for end in ends if end.failed and end.record.exit is not None]
    told_s, earliest = min(told, key=lambda pair: pair[0], default=(math.inf, None))
    vanished = [
        end
        for end in ends
        if end.failed
        and end.record.exit is None
        and (end.rank == missed_first or (end.record.process and end.record.last_seen_s <= told_s))
    ]
    if not vanished:
        return earliest
    return min(vanished, key=lambda end: (end.rank != missed_first, end.record.last_seen_s))


def record_for_agent(attempt: Attempt, reason: str) -> None:
    """Write the end of an attempt on this host, where no agent is left to write it."""
    ended = HostExit(host=host_name(), reason=printable(reason, REASON_LIMIT), ended=time.time())
    write_atomically(attempt.exit_file(ended.host), msgspec.json.encode(ended))


def exit_events(ends: Sequence[RankEnd]) -> list[events.Exit]:
    """The agent's word on each rank."""
    return [
        events.Exit(
            **events.stamp(), role="rank", rank=end.rank, code=end.code, signal=end.signal, reason=end.reason
        )
        for end in ends
    ]


def rank_died(found: Evidence, ends: Sequence[RankEnd]) -> events.Alert | None:
    """The alert of ranks that vanished; None where the job ended for another reason."""
    cause = first_failure(found, ends)
    if cause is None or not cause.died:
        return None
    return events.Alert(
        **events.stamp(),
        code="rank_died",
        severity="critical",
        message=f"rank {cause.rank} died: {cause.reason}",
        count=sum(end.died for end in ends),
        advice=f"See the end of logs/rank-{cause.rank:05d}.log in its attempt, and the kernel's log (dmesg).",
    )


def _rank_end(found: Evidence, failures: Failures, record: RankRecord) -> RankEnd:
    log_tail = found.rank_says[record.rank] if record.rank < len(found.rank_says) else ""
    seen = found.returncode if found.is_rank else failures.codes.get(record.rank)
    if record.exit is not None and not (found.is_rank and found.returncode < 0):
        code = found.returncode if found.is_rank else record.exit.code
        return RankEnd(record, code, record.exit.signal, printable(record.exit.reason, REASON_LIMIT))
    if seen is not None and seen < 0:
        name = _signal_name(seen)
        return RankEnd(record, None, name, _signal_reason(name, found.oom_killed))
    if seen is not None:
        early = STOPPED_EARLY if found.stops else "finished"
        said = early if seen == 0 else _last_error(log_tail) or f"exit code {seen}"
        return RankEnd(record, seen, "", said)
    return RankEnd(record, None, "", "gone without a word; nobody saw how it ended")


def _killed_by_us(found: Evidence, ends: Sequence[RankEnd]) -> bool:
    """The second stop kills; the first one is a SIGTERM, which ends what has no handler for it yet."""
    if found.stops > 1:
        return any(end.failed for end in ends)
    return found.stops == 1 and found.returncode == -signal.SIGTERM


def _named(cause: RankEnd, ends: Sequence[RankEnd]) -> str:
    """The reason, with the rank where others ended for another one."""
    alike = all(end.reason == cause.reason for end in ends)
    return cause.reason if alike else f"rank {cause.rank}: {cause.reason}"


def _host_exit(found: Evidence, code: int | None, name: str, reason: str) -> HostExit:
    shown = printable(reason, REASON_LIMIT)
    return HostExit(host=found.host, code=code, signal=name, reason=shown, ended=time.time())


def _signal_name(returncode: int) -> str:
    if returncode >= 0:
        return ""
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"


def _signal_reason(name: str, oom_killed: bool) -> str:
    if name == "SIGKILL" and oom_killed:
        return "killed (SIGKILL) by the kernel: the host ran out of memory"
    if name == "SIGKILL":
        return "killed (SIGKILL) from outside; the kernel counted no out-of-memory kill on this host"
    return f"ended by {name}"


def _last_error(text: str) -> str:
    """The last line that says what went wrong, as the ranks and Python print it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    chosen = errors[-1].removeprefix("error: ") if errors else (lines[-1] if lines else "")
    return printable(chosen, REASON_LIMIT)
