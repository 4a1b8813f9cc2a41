"""The agent: `python -m dpo_daemon.agent RUN_DIR ATTEMPT`, the parent of the job on one node.

It starts the job, samples the host, and records how the job ended. It has no sockets, so
nothing that happens to a keeper or a client reaches it or the job.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
import psutil

from dpo_daemon import exits, launch, processes
from dpo_daemon.errors import DaemonError
from dpo_daemon.launch import SHUTDOWN_TIMEOUT_S, Launcher
from dpo_daemon.ranks import read_ranks
from dpo_daemon.sample import Sampler
from dpo_profiles.load import parse_resolved
from dpo_telemetry import cli, events, identity
from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.rundir import live
from dpo_telemetry.rundir.create import write_atomically
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.rundir.layout import Attempt, RunDirectory
from dpo_telemetry.writer import EventWriter

log = logging.getLogger(__name__)

SAMPLE_INTERVAL_S = 1.0
HEARTBEAT_INTERVAL_S = 1.0
ORPHAN_GRACE_S = 5.0
"""Time that processes which the job left behind have between SIGTERM and SIGKILL."""


class Agent:
    """One attempt on this host, from the start of the job to its last process."""

    def __init__(self, run: RunDirectory, attempt: Attempt, launcher: Launcher) -> None:
        self._run = run
        self._attempt = attempt
        self._launcher = launcher
        self._host = identity.host_name()
        self._terminations = 0
        self._writer = self._own_events()
        self._sampler = Sampler(self._host, run.path)

    def work(self) -> HostExit:
        """Run the job to its end, and write down how it ended, also when it is the agent that fails."""
        try:
            return self._finish(self._run_job())
        except Exception as error:
            processes.end(processes.descendants(), ORPHAN_GRACE_S)
            if not self._attempt.ended():
                exits.record_for_agent(self._attempt, f"the agent failed: {type(error).__name__}: {error}")
            raise

    def _run_job(self) -> HostExit:
        wakeups = _signals_as_bytes()
        processes.adopt_orphans()
        self._register()
        oom_kills = exits.oom_kills()
        try:
            job = self._start()
        except OSError as error:
            return self._unstartable(error)
        returncode = self._watch(job, wakeups)
        processes.end(processes.descendants(), ORPHAN_GRACE_S)
        return self._tell_end(returncode, exits.oom_kills() > oom_kills)

    def _tell_end(self, returncode: int, oom_killed: bool) -> HostExit:
        """Write down how each rank ended, and sum it up."""
        found = exits.collect(
            self._attempt,
            self._host,
            returncode,
            stops=self._terminations,
            oom_killed=oom_killed,
            ranks=self._launcher.ranks,
            is_rank=self._launcher.is_rank,
        )
        ended, ends = exits.describe(found), exits.rank_ends(found)
        if not ended.reason.startswith("stopped") and (alert := exits.rank_died(found, ends)):
            self._writer.put(alert)
        for event in exits.exit_events(ends):
            self._writer.put(event)
        return ended

    def _own_events(self) -> EventWriter:
        """The agent's file, its Start event on disk: whoever finds no other trace can tell who is gone."""
        writer = EventWriter(self._attempt.event_file(f"agent-{self._host}"))
        writer.put(
            events.Start(
                **events.stamp(),
                **identity.writer_fields(),
                role="agent",
                attempt=self._attempt.number,
            )
        )
        if not writer.flush():
            raise DaemonError(f"{writer.path}: the disk takes nothing; free some space, then start again")
        writer.set_heartbeat(HEARTBEAT_INTERVAL_S, lambda: events.Heartbeat(**events.stamp()))
        return writer

    def _register(self) -> None:
        """The register is a hint for finding the run; the job does not depend on it."""
        try:
            live.register(self._run, identity.current())
        except (OSError, TelemetryError) as error:
            log.warning("not in the register of live runs: %s", error)

    def _start(self) -> subprocess.Popen[bytes]:
        """Several ranks write logs of their own, and what starts them another."""
        path = self._attempt.log_file(0)
        if not self._launcher.is_rank:
            path = self._attempt.launcher_log(self._host)
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return launch.start(self._launcher, log)
        finally:
            os.close(log)

    def _unstartable(self, error: OSError) -> HostExit:
        program = self._launcher.command()[0]
        reason = f"{program}: the job cannot be started: {error.strerror}"
        return HostExit(host=self._host, code=cli.EXIT_USAGE, reason=reason, ended=time.time())

    def _watch(self, job: subprocess.Popen[bytes], wakeups: int) -> int:
        """Sample until the job ends; returns its code as `subprocess` gives it."""
        self._sample_while(lambda: job.poll() is None, wakeups, lambda: job.send_signal(signal.SIGTERM))
        ranks = self._orphans()
        if ranks:
            # Their launcher was killed, and nothing else is wrong with them: they end as in any stop.
            log.warning("the launcher is gone (%s); %d ranks are asked to end", job.returncode, len(ranks))
            processes.terminate(ranks)
            deadline = time.monotonic() + SHUTDOWN_TIMEOUT_S
            self._sample_while(
                lambda: processes.any_running(ranks) and time.monotonic() < deadline,
                wakeups,
                lambda: None,
            )
        return job.returncode

    def _sample_while(
        self, running: Callable[[], bool], wakeups: int, ask_to_stop: Callable[[], None]
    ) -> None:
        due = time.monotonic()
        while running():
            if time.monotonic() >= due:
                due = time.monotonic() + SAMPLE_INTERVAL_S
                self._sample()
            if select.select([wakeups], [], [], max(0.0, due - time.monotonic()))[0]:
                for number in os.read(wakeups, 512):
                    if number in (signal.SIGTERM, signal.SIGINT):
                        self._terminate(ask_to_stop)

    def _orphans(self) -> list[psutil.Process]:
        """Ranks that outlived their launcher, without their workers."""
        known = {
            record.process.pid
            for record in read_ranks(self._attempt, self._launcher.ranks)
            if record.process is not None and record.process.alive()
        }
        return [process for process in processes.descendants() if process.pid in known]

    def _sample(self) -> None:
        try:
            for event in self._sampler.sample():
                self._writer.put(event)
        except Exception:
            # A look that fails is a sample less; leaving the job without its parent would be worse.
            log.exception("sample")

    def _terminate(self, ask_to_stop: Callable[[], None]) -> None:
        """The first time ask the job to stop, which it does after its step; the second time end it."""
        self._terminations += 1
        if self._terminations == 1:
            ask_to_stop()
            return
        processes.kill(processes.descendants())

    def _finish(self, ended: HostExit) -> HostExit:
        """The exit file comes last: whoever sees it sees everything."""
        self._sampler.close()
        self._writer.put(events.Exit(**events.stamp(), role="agent", code=cli.EXIT_FINE))
        self._writer.close()
        write_atomically(self._attempt.exit_file(self._host), msgspec.json.encode(ended))
        live.unregister(self._run)
        return ended


def _signals_as_bytes() -> int:
    """A descriptor that becomes readable when a signal arrives, one byte each."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return reading


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.argument("attempt_number", metavar="ATTEMPT", type=click.IntRange(min=1))
@click.option("--detach", is_flag=True, help="Go on in a session of its own; say `ready` when it has begun.")
def main(run_dir: Path, attempt_number: int, detach: bool) -> None:
    """Start the job of one attempt on this host, watch it, and record how it ends."""
    run = RunDirectory(run_dir.absolute())
    run.info()
    attempt = run.attempt(attempt_number)
    if not attempt.profile_file.exists():
        raise DaemonError(
            f"{attempt.path}: there is no such attempt; `dpo-daemon status {run.path}` shows them"
        )
    profile = parse_resolved(attempt.profile_file.read_text(), str(attempt.profile_file))
    launcher = launch.launcher_for(profile, run, attempt)
    if detach:
        processes.detach()
    agent = Agent(run, attempt, launcher)
    if detach:
        processes.say_ready(attempt.logs_dir / f"agent-{identity.host_name()}.log")
    agent.work()


if __name__ == "__main__":
    cli.run(main, "dpo-daemon agent")
