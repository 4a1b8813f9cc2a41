"""Why a job ended, told as far as it can be known from outside."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path

import msgspec

from dpo_telemetry import events
from dpo_telemetry.identity import host_name
from dpo_telemetry.rundir.create import write_atomically
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.rundir.layout import Attempt
from dpo_telemetry.text import printable

TAIL_BYTES = 64 << 10
REASON_LIMIT = 300
"""Characters."""
GONE = "the agent and the job are gone without a word: killed, or the host was restarted"
"""Why an attempt ended whose processes left nothing behind."""


def oom_kills(vmstat: Path = Path("/proc/vmstat")) -> int:
    """Processes that the kernel has killed for want of memory since boot; 0 where it does not count."""
    with contextlib.suppress(OSError, ValueError):
        for line in vmstat.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def describe(
    host: str, returncode: int, *, killed_by_us: bool, oom_killed: bool, rank_says: str, log_tail: str
) -> HostExit:
    """The end of a job as one record.

    `returncode` is as `subprocess` gives it: negative for a signal. `rank_says` is the reason in
    the rank's own exit event, which knows best; `log_tail` is the end of its output.
    """
    code = returncode if returncode >= 0 else None
    name = "" if returncode >= 0 else signal.Signals(-returncode).name
    if name:
        reason = _signal_reason(name, killed_by_us, oom_killed)
    else:
        reason = rank_says or ("finished" if code == 0 else _last_error(log_tail) or f"exit code {code}")
    return HostExit(host=host, code=code, signal=name, reason=reason, ended=time.time())


def record_for_agent(attempt: Attempt, reason: str) -> None:
    """Write the end of an attempt on this host, where no agent is left to write it."""
    ended = HostExit(host=host_name(), reason=printable(reason, REASON_LIMIT), ended=time.time())
    write_atomically(attempt.exit_file(ended.host), msgspec.json.encode(ended))


def reason_of_rank(event_file: Path) -> str:
    """What a rank wrote in its exit event; empty when it came to no exit event."""
    for line in reversed(tail(event_file).splitlines()):
        with contextlib.suppress(*events.NOT_READABLE):
            event = events.decode(line.encode())
            if isinstance(event, events.Exit):
                return event.reason
    return ""


def tail(file: Path) -> str:
    """The last `TAIL_BYTES` of a file as text; empty when it is not there."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - TAIL_BYTES))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""


def _signal_reason(name: str, killed_by_us: bool, oom_killed: bool) -> str:
    if killed_by_us:
        return f"stopped: killed ({name}) as asked"
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
