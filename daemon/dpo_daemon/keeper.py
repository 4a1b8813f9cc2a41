"""The keeper: `python -m dpo_daemon.keeper RUN_DIR`, one a run.

It looks at the run directory, publishes what grew, answers clients, runs the health rules and
writes the summary. It holds no state that is not in the run directory: killed and started
again, it serves on where the files stand.
"""

from __future__ import annotations

import logging
import signal
import time
from pathlib import Path

import click
import msgspec

from dpo_daemon import exits, processes
from dpo_daemon.alerting import Alerting
from dpo_daemon.answers import Answers
from dpo_daemon.budgets import Budgets
from dpo_daemon.errors import DaemonError
from dpo_daemon.sockets import Sockets
from dpo_daemon.summary import agent_of, ranks_of, read_summary, summarise
from dpo_telemetry import cli, events, identity
from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.identity import ProcessIdentity
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import MAX_READ_BYTES, Chunk, DirectorySource
from dpo_telemetry.rundir.create import write_atomically
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.wire.frames import pack
from dpo_telemetry.wire.messages import (
    HEARTBEAT_INTERVAL_S,
    MAX_DELTA_BYTES,
    TOPIC_BUDGET,
    TOPIC_DELTA,
    TOPIC_HEARTBEAT,
    Delta,
    Heartbeat,
)
from dpo_telemetry.writer import EventWriter

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 0.1
SUMMARY_INTERVAL_S = 1.0
LINGER_S = 10.0
"""How long a keeper serves on after the run has ended, so that whoever watches sees the end."""
REMOVED_AFTER_S = 30.0
"""A run directory that is not there for so long is not on a file system that hangs, it was removed."""
AGENT_GONE_AFTER_S = 3.0
"""An agent that is gone without an exit file for so long did not get to write one."""


class Keeper:
    """Serves one run until its newest attempt has ended."""

    def __init__(self, run: RunDirectory, *, linger_s: float = LINGER_S) -> None:
        self._run = run
        self._attempt = run.attempts()[-1]
        self._linger_s = linger_s
        self._identity = identity.current()
        self._stopped = False
        # Before there are sockets: whoever sees them may already ask the keeper to end.
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        self._source = DirectorySource(run)
        self._model = RunModel()
        self._sockets = Sockets(run)
        self._answers = Answers(run, self._source, self._model)
        self._writer = self._own_events()
        self._alerting = Alerting(run, self._attempt, self._writer)
        self._budgets = Budgets()
        self._caught_up = False
        self._beat_due = self._summary_due = 0.0
        self._agent_gone_since: float | None = None
        self._removed_since: float | None = None
        self._ended_since: float | None = None

    def start_agent(self) -> None:
        """Start the attempt on this host.

        Raises:
            DaemonError: it was started before, or the agent cannot work, which is then recorded as its end.
        """
        if self._on_this_host():
            raise DaemonError(f"{self._attempt.path}: was started before; `dpo-daemon keep` serves it")
        try:
            processes.start_detached("dpo_daemon.agent", [str(self._run.path), str(self._attempt.number)])
        except DaemonError as error:
            exits.record_for_agent(self._attempt, f"the agent did not start: {error.message}")
            raise

    def serve(self) -> None:
        """Look, publish and answer until nothing more is to come."""
        log.info(
            "keeper %d serves %s at %s", self._identity.pid, self._run.path, self._sockets.endpoints.folder
        )
        while not self._stopped and not self._over():
            self._look()
            self._each_second()
            self._answer()
        self._say_goodbye()

    def close(self) -> None:
        """Let go of files and sockets."""
        self._writer.close()
        self._sockets.close()

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _own_events(self) -> EventWriter:
        """A new event file: a keeper that was killed may have left a torn line in its own."""
        for number in range(1, 10_000):
            path = self._attempt.event_file(f"keeper-{number}")
            if not path.exists():
                writer = EventWriter(path)
                break
        else:
            raise DaemonError(f"{self._attempt.events_dir}: holds 9,999 files of keepers; remove some")
        writer.put(
            events.Start(
                **events.stamp(),
                **identity.writer_fields(),
                role="keeper",
                attempt=self._attempt.number,
            )
        )
        writer.set_heartbeat(HEARTBEAT_INTERVAL_S, lambda: events.Heartbeat(**events.stamp()))
        return writer

    def _look(self) -> None:
        """Take what grew. What was there before this keeper is not published: clients read it."""
        chunks = self._source.poll()
        self._model.apply(chunks)
        if self._caught_up:
            for chunk in chunks:
                self._publish(chunk)
        elif all(len(chunk.data) < MAX_READ_BYTES for chunk in chunks):
            self._caught_up = True
        if chunks:
            self._alerting.report(self._model)

    def _publish(self, chunk: Chunk) -> None:
        for start in range(0, len(chunk.data), MAX_DELTA_BYTES):
            piece = chunk.data[start : start + MAX_DELTA_BYTES]
            delta = Delta(file=chunk.file, offset=chunk.offset + start, data=piece)
            self._sockets.publish(TOPIC_DELTA, pack(delta, run=self._run_id))

    def _publish_budgets(self) -> None:
        for budget in self._budgets.changed(self._model):
            self._sockets.publish(TOPIC_BUDGET, pack(budget, run=self._run_id))

    @property
    def _run_id(self) -> str:
        return self._model.run.id if self._model.run else ""

    def _each_second(self) -> None:
        now = time.monotonic()
        if now >= self._beat_due:
            self._beat_due = now + HEARTBEAT_INTERVAL_S
            self._beat()
            self._mend_sockets()
            self._leave_where_all_is_gone(now)
        if now >= self._summary_due and self._caught_up:
            self._summary_due = now + SUMMARY_INTERVAL_S
            self._bury_agent(now)
            self._publish_budgets()
            self._write_summary()

    def _leave_where_all_is_gone(self, now: float) -> None:
        """End where somebody removed the run: nothing is left to serve, and nobody would end this process."""
        if self._run.path.exists():
            self._removed_since = None
            return
        self._removed_since = self._removed_since or now
        if now - self._removed_since >= REMOVED_AFTER_S:
            log.error("%s was removed; this keeper ends", self._run.path)
            self._stopped = True

    def _mend_sockets(self) -> None:
        try:
            if self._sockets.mend():
                log.warning("a socket file was removed; bound again in %s", self._sockets.endpoints.folder)
        except (DaemonError, TelemetryError) as error:
            # The files of the run are still to be watched, and in a second the sockets may find a place.
            log.warning("a socket file was removed and cannot be bound again yet: %s", error.message)

    def _beat(self) -> None:
        sizes = self._source.offsets().values()
        beat = Heartbeat(time=time.time(), files=len(sizes), total_bytes=sum(sizes))
        self._sockets.publish(TOPIC_HEARTBEAT, pack(beat, run=self._run_id))

    def _write_summary(self) -> None:
        try:
            summary = summarise(self._run, self._model, self._identity)
            write_atomically(self._run.state_file, msgspec.json.encode(summary))
        except OSError as error:
            log.warning("%s: cannot be written: %s", self._run.state_file, error.strerror)

    def _bury_agent(self, now: float) -> None:
        """Record the end of a job whose agent, and ranks, are gone from this host without a word."""
        agent = agent_of(self._model)
        if self._attempt.ended() or not self._on_this_host() or self._anyone_alive(agent):
            self._agent_gone_since = None
            return
        self._agent_gone_since = self._agent_gone_since or now
        if now - self._agent_gone_since >= AGENT_GONE_AFTER_S:
            who = f"the agent {agent.pid}" if agent else "an agent that came to no start event"
            log.error("%s is gone without an exit file", who)
            self._record_end()

    def _record_end(self) -> None:
        try:
            exits.record_for_agent(self._attempt, exits.GONE)
        except OSError as error:
            log.warning("%s: the end cannot be recorded: %s", self._attempt.path, error.strerror)

    def _on_this_host(self) -> bool:
        return self._attempt.event_file(f"agent-{identity.host_name()}").exists()

    def _anyone_alive(self, agent: ProcessIdentity | None) -> bool:
        ranks = ranks_of(self._model, self._attempt.number)
        return any(process.alive() for process in [*ranks, *([agent] if agent else [])])

    def _answer(self) -> None:
        for channel, sender, frames in self._sockets.received(LOOK_INTERVAL_S):
            try:
                reply = self._answers.answer(channel, frames)
            except Exception:
                # One client's request must not end the service of all others.
                log.exception("request on the %s socket", channel)
                continue
            if reply is not None:
                self._sockets.reply(channel, sender, reply)

    def _over(self) -> bool:
        now = time.monotonic()
        if not self._attempt.ended():
            self._ended_since = None
            return False
        self._ended_since = self._ended_since or now
        return self._caught_up and now - self._ended_since >= self._linger_s

    def _say_goodbye(self) -> None:
        """The last lines, published like all others, and the last summary."""
        dropped = dict(self._answers.dropped)
        log.info("keeper %d leaves; messages dropped: %s", self._identity.pid, dropped or "none")
        self._writer.put(events.Exit(**events.stamp(), role="keeper", code=cli.EXIT_FINE))
        self._writer.close()
        self._look()
        self._publish_budgets()
        self._beat()
        self._write_summary()


def refuse_second(run: RunDirectory) -> None:
    """Refuse while a keeper on this host serves the run, wherever it has its sockets.

    Raises:
        DaemonError: one line with the keeper's pid.
    """
    summary = read_summary(run)
    if summary is not None and summary.keeper is not None and summary.keeper_alive():
        raise DaemonError(
            f"{run.path}: keeper {summary.keeper.pid} serves this run already; `dpo-tui attach` it"
        )


def _log_to(path: Path) -> None:
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--start", is_flag=True, help="Start the newest attempt on this host.")
@click.option("--linger", "linger_s", type=click.FloatRange(min=0), default=LINGER_S, show_default=True,
              metavar="SECONDS", help="Serve on for so long after the run has ended.")  # fmt: skip
@click.option(
    "--detach", is_flag=True, help="Go on in a session of its own; say `ready` when clients are served."
)
def main(run_dir: Path, start: bool, linger_s: float, detach: bool) -> None:
    """Serve one run to whoever watches it."""
    run = RunDirectory(run_dir.absolute())
    run.info()
    if not run.attempts():
        raise DaemonError(f"{run.path}: holds no attempt; start one with `dpo-daemon start`")
    refuse_second(run)
    if detach:
        processes.detach()
    _log_to(run.keeper_log)
    keeper = Keeper(run, linger_s=linger_s)
    try:
        if start:
            keeper.start_agent()
        if detach:
            processes.say_ready(run.keeper_log)
        keeper.serve()
    except (DaemonError, TelemetryError):
        raise
    except Exception:
        log.exception("the keeper failed; the job goes on, `dpo-daemon keep %s` serves it again", run.name)
        raise
    finally:
        keeper.close()


if __name__ == "__main__":
    cli.run(main, "dpo-daemon keeper")
