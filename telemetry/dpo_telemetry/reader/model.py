"""What is known of a run, built up from chunks and from nothing else."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
import numpy as np

from dpo_telemetry import events
from dpo_telemetry.events import AnyEvent
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.diagnosis import RULES, Diagnosis
from dpo_telemetry.health.memory_watch import MEMORY_RULES
from dpo_telemetry.health.samples import with_samples
from dpo_telemetry.reader.attempt import AttemptView, ProcessView
from dpo_telemetry.reader.card_processes import CardProcesses, Sighting
from dpo_telemetry.reader.history import History
from dpo_telemetry.reader.judge import Judge
from dpo_telemetry.reader.lines import LineReader
from dpo_telemetry.reader.memory_history import MemoryHistory
from dpo_telemetry.reader.pace import Pace
from dpo_telemetry.reader.rows import append_columns, append_rows, append_work
from dpo_telemetry.reader.source import Chunk, Prepared
from dpo_telemetry.reader.steps import NEWEST_STEPS, StepColumns
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.rundir.layout import RunInfo
from dpo_telemetry.series.columns import SeriesStore, Table

T = TypeVar("T")

MAX_SAMPLES = 10_000
"""Sample events that are kept: those of the first steps are what anyone asks for."""

_EVENTS = re.compile(r"^attempts/(\d{3,9})/events/([A-Za-z0-9._-]+)\.jsonl$")
_WHOLE = re.compile(r"^attempts/(\d{3,9})/(profile\.toml|plan\.json|exit-[A-Za-z0-9.-]+\.json)$")


class RunModel:
    """Everything that a screen, a summary or a diagnosis needs. Not thread safe."""

    def __init__(self, expected_steps: int = 0) -> None:
        """`expected_steps` have room from the start."""
        self.run: RunInfo | None = None
        self.attempts: dict[int, AttemptView] = {}
        self.processes: dict[str, ProcessView] = {}
        self.series = SeriesStore(expected_steps)
        self.work = Table(expected_steps)
        """"tokens" and "step_time_s" of each step, apart from the metrics that the rules judge."""
        self._judged = Judge(self.series)
        self.recorded_alerts: list[events.Alert] = []
        """Every alert event, those of keepers included."""
        self._told_alerts: dict[int, list[events.Alert]] = {}
        """By attempt: of those before, what died or did not fit is history."""
        self.history = History()
        """What happened once, and the phases of rank 0."""
        self.memory: dict[int, events.Memory] = {}
        self.gpus: dict[tuple[str, int], events.Gpu] = {}
        self.gpu_of_rank: dict[int, tuple[str, int]] = {}
        """Host and index of the card on which NVML saw a rank's process last."""
        self.process_bytes: dict[int, int] = {}
        """What NVML showed of a rank's process last."""
        self.memory_history = MemoryHistory()
        self.hosts: dict[str, events.Host] = {}
        self.checkpoints: list[events.Checkpoint] = []
        self.samples: list[events.Sample] = []
        self.requests: list[events.Request] = []
        self.answers: list[events.Answer] = []
        self.lost_events = 0
        self._lines: dict[str, LineReader] = {}
        self._whole: dict[str, bytes] = {}
        self._card_processes = CardProcesses()
        self._pace = Pace()
        self._last_steps: dict[int, int] = {}

    def apply(self, chunks: Iterable[Chunk]) -> None:
        """Take what a source handed out.

        Raises:
            ValueError: a chunk does not start where its file stands; sources close gaps first.
        """
        self._take(chunks)
        self._judged.look(*self._newest())

    def restore(self, chunks: Iterable[Chunk], alerts: Iterable[HealthAlert]) -> None:
        """Take all there is of a run, with what the rules said of it when it was read before.

        Raises:
            ValueError: as for `apply`.
        """
        self._take(chunks)
        self._judged.know(alerts, *self._newest())

    def adopt(self, series: SeriesStore, alerts: Iterable[HealthAlert]) -> None:
        """Be a log of which nothing is known but its rows and what the rules say of them."""
        self.series, self._judged = series, Judge(series)
        self._judged.know(alerts, *self._newest())

    def rule_alerts(self) -> list[HealthAlert]:
        """What the rules say of the effective rows, and nothing else."""
        return self._judged.alerts()

    def _take(self, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            if match := _EVENTS.match(chunk.file):
                self._apply_events(chunk, int(match[1]))
            elif match := _WHOLE.match(chunk.file):
                self._apply_whole(chunk, self._attempt(int(match[1])), match[2])
            elif chunk.file == "run.json":
                self.run = self._decode_whole(chunk, RunInfo) or self.run

    def _newest(self) -> tuple[int, dict[str, Any]]:
        newest = max(self.attempts, default=0)
        return newest, self.attempts[newest].profile if newest else {}

    def offsets(self) -> dict[str, int]:
        """How far each file was taken, in bytes."""
        taken = {file: reader.offset for file, reader in self._lines.items()}
        return taken | {file: len(data) for file, data in self._whole.items()}

    @property
    def diagnosis(self) -> Diagnosis:
        """The rules over the effective rows."""
        return self._judged.diagnosis

    @property
    def attempt(self) -> AttemptView | None:
        """The newest attempt."""
        return self.attempts[max(self.attempts)] if self.attempts else None

    @property
    def alerts(self) -> list[HealthAlert]:
        """Alerts of the rules and those that processes of the newest attempt recorded, each code and metric once.

        What a keeper's rules said is left out: they are the same rules, over what was effective then.
        """
        found = {(alert.code, alert.metric): alert for alert in self.judged_alerts()}
        for event in self._told_alerts.get(max(self.attempts, default=0), []):
            if event.code not in self._judged.context.ignored:
                key = (event.code, event.metric)
                if key not in found:
                    found[key] = HealthAlert.of_event(event)
        return sorted(found.values(), key=HealthAlert.rank)

    def judged_alerts(self) -> list[HealthAlert]:
        """What the rules say of the effective rows, and of the newest attempt's memory, but for what is ignored."""
        found = [with_samples(alert, self.samples) for alert in self.rule_alerts()]
        found += self.attempt.memory_watch.alerts() if self.attempt else []
        return [alert for alert in found if alert.code not in self._judged.context.ignored]

    @property
    def phase(self) -> events.Phase | None:
        """Innermost phase of rank 0 that is open, else the last one that ended."""
        return self.history.phases.current

    @property
    def last_step(self) -> int:
        """Largest step of the newest attempt, or that which it resumed from; 0 before the first."""
        attempt = self.attempt
        if attempt is None or attempt.start is None:
            return self.series.train.last_step() or 0
        return max(attempt.start.resumed_from_step or 0, self._last_steps.get(attempt.number, 0))

    @property
    def max_steps(self) -> int | None:
        """Steps that the newest attempt will make."""
        attempt = self.attempt
        if attempt is None:
            return None
        if attempt.start is not None and attempt.start.max_steps is not None:
            return attempt.start.max_steps
        train = attempt.profile.get("train")
        value = train.get("max_steps") if isinstance(train, dict) else None
        return value if isinstance(value, int) else None

    @property
    def step_time_s(self) -> float | None:
        """Median time of the recent steps, seconds."""
        return self._pace.step_time_s

    @property
    def eta_s(self) -> float | None:
        """Time that the steps still to come take at the recent pace, seconds."""
        if self.max_steps is None or self.step_time_s is None:
            return None
        return max(0, self.max_steps - self.last_step) * self.step_time_s

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens of the recent steps over their time."""
        return self._pace.tokens_per_s

    @property
    def pairs_per_s(self) -> float | None:
        """Pairs of the recent steps over their time."""
        return self._pace.pairs_per_s

    @property
    def damaged_lines(self) -> int:
        """Lines that are no events, torn tails of ended writers included."""
        torn = sum(
            reader.unfinished and self._ended(self.processes[file].attempt)
            for file, reader in self._lines.items()
        )
        return torn + sum(reader.damaged for reader in self._lines.values())

    @property
    def unknown_lines(self) -> int:
        """Lines of kinds that this version does not know."""
        return sum(reader.unknown for reader in self._lines.values())

    def _ended(self, attempt: int) -> bool:
        return attempt < max(self.attempts) or bool(self.attempts[attempt].host_exits)

    def _attempt(self, number: int) -> AttemptView:
        if number not in self.attempts:
            if number > max(self.attempts, default=0):
                # Its ranks may sit on other cards, or be fewer.
                self.gpu_of_rank.clear()
                self.process_bytes.clear()
            self.attempts[number] = AttemptView(number)
        return self.attempts[number]

    def _apply_events(self, chunk: Chunk, attempt: int) -> None:
        reader = self._lines.setdefault(chunk.file, LineReader())
        if reader.offset != chunk.offset:
            raise ValueError(f"{chunk.file}: stands at {reader.offset}, chunk starts at {chunk.offset}")
        self._attempt(attempt)
        process = self.processes.setdefault(chunk.file, ProcessView(chunk.file, attempt))
        if isinstance(chunk, Prepared):
            read = reader.feed_prepared(chunk.size_bytes, chunk.steps, chunk.data)
        else:
            read = reader.feed_columns(chunk.data)
        found = read.events
        newest = [*found[-1:], *(read.steps.newest[-1:] if read.steps else [])]
        if not newest:
            return
        process.last_seen_s = max(event.t for event in newest)
        self.history.take(chunk.file, attempt, found, read.steps)
        steps = [event for event in found if isinstance(event, events.Step)]
        evaluations = [event for event in found if isinstance(event, events.Eval)]
        if len(steps) + len(evaluations) < len(found):
            for event in found:
                self._apply_event(event, process)
        if steps:
            self._apply_steps(steps, process)
        if read.steps:
            self._apply_columns(read.steps, process)
        append_rows(self.series.eval, evaluations, attempt, "eval_epoch")

    def _apply_whole(self, chunk: Chunk, attempt: AttemptView, name: str) -> None:
        if name == "profile.toml":
            attempt.profile = self._decode_toml(chunk)
        elif name == "plan.json":
            attempt.plan = self._decode_whole(chunk, dict[str, Any]) or attempt.plan
            attempt.budget.plan(attempt.plan)
        elif exit_ := self._decode_whole(chunk, HostExit):
            others = [other for other in attempt.host_exits if other.host != exit_.host]
            attempt.host_exits = [*others, exit_]

    def _gather(self, chunk: Chunk) -> bytes:
        known = self._whole.get(chunk.file, b"")
        if chunk.offset > len(known):
            raise ValueError(f"{chunk.file}: stands at {len(known)}, chunk starts at {chunk.offset}")
        data = known[: chunk.offset] + chunk.data
        self._whole[chunk.file] = data
        return data

    def _decode_whole(self, chunk: Chunk, kind: type[T]) -> T | None:
        data = self._gather(chunk)
        try:
            return msgspec.json.decode(data, type=kind)
        except events.NOT_READABLE:
            return None

    def _decode_toml(self, chunk: Chunk) -> dict[str, Any]:
        data = self._gather(chunk)
        try:
            return tomllib.loads(data.decode())
        except (ValueError, RecursionError):
            return {}

    def _apply_event(self, event: AnyEvent, process: ProcessView) -> None:
        """One event of any kind but those that become rows."""
        match event:
            case events.Start():
                process.start = event
                if event.role == "rank" and event.rank is not None:
                    seen = self._card_processes.start(process.attempt, event.host, event.pid, event.rank)
                    if seen is not None:
                        self._see_process(seen, process.attempt)
                if event.role == "rank" and event.rank == 0:
                    self._attempt(process.attempt).start = event
                    self.history.phases.interrupt()
            case events.Exit():
                process.exit = event
                if event.role == "rank" and event.rank == 0 and process.rank == 0:
                    self._attempt(process.attempt).exit = event
            case events.Phase():
                if not process.rank:
                    self.history.phases.take(event, process.attempt)
            case events.Memory():
                self._apply_memory(event, process)
            case events.Gpu():
                self._apply_gpu(event, process)
            case events.Host():
                self.hosts[event.host] = event
            case events.LogGap():
                self.lost_events += event.lost
            case _:
                self._collect(event, process)

    def _apply_memory(self, event: events.Memory, process: ProcessView) -> None:
        rank, attempt = process.rank or 0, self._attempt(process.attempt)
        self.memory[rank] = event
        attempt.budget.measure(rank, event)
        attempt.memory_watch.feed(rank, event)
        self.memory_history.measure(process.attempt, rank, event)

    def _apply_gpu(self, event: events.Gpu, process: ProcessView) -> None:
        card = (event.host, event.index)
        self.gpus[card] = event
        for seen in self._card_processes.see(process.attempt, event):
            self._see_process(seen, process.attempt)
        self.memory_history.see_card(process.attempt, card, event.t, event.memory_used_bytes)

    def _see_process(self, seen: Sighting, attempt: int) -> None:
        if attempt == max(self.attempts, default=0):
            self.gpu_of_rank[seen.rank] = seen.card
            self.process_bytes[seen.rank] = seen.newest_bytes
        for size in dict.fromkeys((seen.largest_bytes, seen.newest_bytes)):
            self._attempt(attempt).budget.see_process(seen.rank, size)

    def _collect(self, event: AnyEvent, process: ProcessView) -> None:
        match event:
            case events.Alert():
                self.recorded_alerts.append(event)
                self._attempt(process.attempt).alerts.append(event)
                by_keeper = process.start is not None and process.start.role == "keeper"
                if not (by_keeper and (event.code in RULES or event.code in MEMORY_RULES)):
                    self._told_alerts.setdefault(process.attempt, []).append(event)
            case events.Checkpoint():
                self.checkpoints.append(event)
            case events.Sample():
                if len(self.samples) < MAX_SAMPLES:
                    self.samples.append(event)
            case events.Request():
                self.requests.append(event)
            case events.Answer():
                self.answers.append(event)

    def _apply_steps(self, steps: list[events.Step], process: ProcessView) -> None:
        """Rank 0 tells the steps; what the other ranks add must not pass for rows of their own."""
        process.last_step_s = steps[-1].t
        if process.rank:
            return
        last = max(step.step for step in steps)
        self._last_steps[process.attempt] = max(last, self._last_steps.get(process.attempt, 0))
        told = [step for step in steps if step.metrics]
        append_rows(self.series.train, told, process.attempt, "epoch")
        append_work(self.work, steps, process.attempt)
        self._pace.add(steps[-NEWEST_STEPS:])

    def _apply_columns(self, block: StepColumns, process: ProcessView) -> None:
        process.last_step_s = float(block.wall_s[-1])
        if process.rank:
            return
        last = int(block.steps.max())
        self._last_steps[process.attempt] = max(last, self._last_steps.get(process.attempt, 0))
        if block.names:
            attempts = np.full(len(block.steps), process.attempt, np.int64)
            columns = block.columns("epoch")
            self.series.train.extend(block.steps, columns, attempts=attempts, wall_s=block.wall_s)
        append_columns(self.work, block.steps, block.wall_s, block.work, process.attempt)
        self._pace.add(block.newest)
