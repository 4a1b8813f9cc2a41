"""What is known of a run, built up from chunks and from nothing else."""

from __future__ import annotations

import re
import tomllib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

import msgspec
import numpy as np

from dpo_telemetry import events
from dpo_telemetry.budget import Budget
from dpo_telemetry.events import AnyEvent
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.diagnosis import RULES, Diagnosis
from dpo_telemetry.health.memory_watch import MEMORY_RULES, MemoryWatch
from dpo_telemetry.health.rule import Context
from dpo_telemetry.health.samples import with_samples
from dpo_telemetry.reader.lines import LineReader
from dpo_telemetry.reader.rows import append_rows
from dpo_telemetry.reader.source import Chunk
from dpo_telemetry.reader.steps import NEWEST_STEPS, StepColumns
from dpo_telemetry.rundir.exits import HostExit
from dpo_telemetry.rundir.layout import RunInfo
from dpo_telemetry.series.columns import SeriesStore

T = TypeVar("T")

MAX_SAMPLES = 10_000
"""Sample events that are kept: those of the first steps are what anyone asks for."""
RECENT_STEPS = NEWEST_STEPS
"""Steps over which step time and throughput are taken."""

_EVENTS = re.compile(r"^attempts/(\d{3,9})/events/([A-Za-z0-9._-]+)\.jsonl$")
_WHOLE = re.compile(r"^attempts/(\d{3,9})/(profile\.toml|plan\.json|exit-[A-Za-z0-9.-]+\.json)$")
_RANK_FILE = re.compile(r"/rank-(\d{1,9})\.jsonl$")


@dataclass
class AttemptView:
    """One start or resume."""

    number: int
    profile: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    """The plan against what ranks and NVML measured."""
    start: events.Start | None = None
    """Start of rank 0."""
    exit: events.Exit | None = None
    """How rank 0 says it ended."""
    alerts: list[events.Alert] = field(default_factory=list)
    """Every alert event of it, those of its keepers included."""
    host_exits: list[HostExit] = field(default_factory=list)
    """How the agents say that their part of the job ended."""
    memory_watch: MemoryWatch = field(init=False)

    def __post_init__(self) -> None:
        self.memory_watch = MemoryWatch(self.budget)


@dataclass
class ProcessView:
    """One writing process."""

    file: str
    attempt: int
    start: events.Start | None = None
    last_seen_s: float = 0.0
    """Wall clock of its newest event."""
    last_step_s: float = 0.0
    """Wall clock of its newest step."""
    exit: events.Exit | None = None

    @property
    def rank(self) -> int | None:
        """Rank of a training process, by its file while its start is not known; None for others."""
        if self.start is not None:
            return self.start.rank
        name = _RANK_FILE.search(self.file)
        return int(name[1]) if name else None


class RunModel:
    """Everything that a screen, a summary or a diagnosis needs. Not thread safe."""

    def __init__(self) -> None:
        self.run: RunInfo | None = None
        self.attempts: dict[int, AttemptView] = {}
        self.processes: dict[str, ProcessView] = {}
        self.series = SeriesStore()
        self.diagnosis = Diagnosis(Context())
        self.recorded_alerts: list[events.Alert] = []
        """Every alert event, those of keepers included."""
        self._told_alerts: list[events.Alert] = []
        self.phase: events.Phase | None = None
        """Innermost phase of rank 0 that is open, else the last one that ended."""
        self.memory: dict[int, events.Memory] = {}
        self.gpus: dict[tuple[str, int], events.Gpu] = {}
        self.gpu_of_rank: dict[int, tuple[str, int]] = {}
        """Host and index of the card on which NVML saw a rank's process last."""
        self.hosts: dict[str, events.Host] = {}
        self.checkpoints: list[events.Checkpoint] = []
        self.samples: list[events.Sample] = []
        self.requests: list[events.Request] = []
        self.answers: list[events.Answer] = []
        self.lost_events = 0
        self._lines: dict[str, LineReader] = {}
        self._whole: dict[str, bytes] = {}
        self._open_phases: list[events.Phase] = []
        self._ranks_by_pid: dict[tuple[int, str, str], int] = {}
        self._recent: deque[events.Step] = deque(maxlen=RECENT_STEPS)
        self._last_steps: dict[int, int] = {}
        self._context = Context()
        self._judged_profile: dict[str, Any] = {}
        self._judged = [0, 0]
        self._judged_order: tuple[int, ...] = (0, 0, 0)

    def apply(self, chunks: Iterable[Chunk]) -> None:
        """Take what a source handed out.

        Raises:
            ValueError: a chunk does not start where its file stands; sources close gaps first.
        """
        for chunk in chunks:
            if match := _EVENTS.match(chunk.file):
                self._apply_events(chunk, int(match[1]))
            elif match := _WHOLE.match(chunk.file):
                self._apply_whole(chunk, self._attempt(int(match[1])), match[2])
            elif chunk.file == "run.json":
                self.run = self._decode_whole(chunk, RunInfo) or self.run
        self._judge()

    def offsets(self) -> dict[str, int]:
        """How far each file was taken, in bytes."""
        taken = {file: reader.offset for file, reader in self._lines.items()}
        return taken | {file: len(data) for file, data in self._whole.items()}

    @property
    def attempt(self) -> AttemptView | None:
        """The newest attempt."""
        return self.attempts[max(self.attempts)] if self.attempts else None

    @property
    def alerts(self) -> list[HealthAlert]:
        """Alerts of the rules and those that processes of the run recorded, each code and metric once.

        What a keeper's rules said is left out: they are the same rules, over what was effective then.
        """
        found = {(alert.code, alert.metric): alert for alert in self.judged_alerts()}
        for event in self._told_alerts:
            if event.code not in self._context.ignored:
                key = (event.code, event.metric)
                if key not in found:
                    found[key] = HealthAlert.of_event(event)
        return sorted(found.values(), key=HealthAlert.rank)

    def judged_alerts(self) -> list[HealthAlert]:
        """What the rules say of the effective rows, and of the newest attempt's memory, but for what is ignored."""
        found = [with_samples(alert, self.samples) for alert in self.diagnosis.alerts()]
        found += self.attempt.memory_watch.alerts() if self.attempt else []
        return [alert for alert in found if alert.code not in self._context.ignored]

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
        times = [step.times_s["step"] for step in self._recent if "step" in step.times_s]
        return median(times) if times else None

    @property
    def eta_s(self) -> float | None:
        """Time that the steps still to come take at the recent pace, seconds."""
        if self.max_steps is None or self.step_time_s is None:
            return None
        return max(0, self.max_steps - self.last_step) * self.step_time_s

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens of the recent steps over their time."""
        return self._rate([(step.tokens, step.times_s.get("step")) for step in self._recent])

    @property
    def pairs_per_s(self) -> float | None:
        """Pairs of the recent steps over their time."""
        return self._rate([(step.pairs, step.times_s.get("step")) for step in self._recent])

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
            self.attempts[number] = AttemptView(number)
        return self.attempts[number]

    @staticmethod
    def _rate(amounts: list[tuple[int | None, float | None]]) -> float | None:
        known = [(amount, time_s) for amount, time_s in amounts if amount is not None and time_s]
        total_s = sum(time_s for _, time_s in known)
        return sum(amount for amount, _ in known) / total_s if total_s else None

    def _apply_events(self, chunk: Chunk, attempt: int) -> None:
        reader = self._lines.setdefault(chunk.file, LineReader())
        if reader.offset != chunk.offset:
            raise ValueError(f"{chunk.file}: stands at {reader.offset}, chunk starts at {chunk.offset}")
        self._attempt(attempt)
        process = self.processes.setdefault(chunk.file, ProcessView(chunk.file, attempt))
        read = reader.feed_columns(chunk.data)
        found = read.events
        newest = [*found[-1:], *(read.steps.newest[-1:] if read.steps else [])]
        if not newest:
            return
        process.last_seen_s = max(event.t for event in newest)
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
                    self._ranks_by_pid[process.attempt, event.host, str(event.pid)] = event.rank
                if event.role == "rank" and event.rank == 0:
                    self._attempt(process.attempt).start = event
                    self._open_phases.clear()
            case events.Exit():
                process.exit = event
                if event.role == "rank" and event.rank == 0 and process.rank == 0:
                    self._attempt(process.attempt).exit = event
            case events.Phase():
                self._apply_phase(event, process)
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

    def _apply_gpu(self, event: events.Gpu, process: ProcessView) -> None:
        self.gpus[event.host, event.index] = event
        for pid, used in event.process_bytes.items():
            rank = self._ranks_by_pid.get((process.attempt, event.host, pid))
            if rank is not None:
                self.gpu_of_rank[rank] = (event.host, event.index)
                self._attempt(process.attempt).budget.see_process(rank, used)

    def _collect(self, event: AnyEvent, process: ProcessView) -> None:
        match event:
            case events.Alert():
                self.recorded_alerts.append(event)
                self._attempt(process.attempt).alerts.append(event)
                by_keeper = process.start is not None and process.start.role == "keeper"
                if not (by_keeper and (event.code in RULES or event.code in MEMORY_RULES)):
                    self._told_alerts.append(event)
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
        self._recent.extend(steps[-RECENT_STEPS:])

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
        self._recent.extend(block.newest)

    def _apply_phase(self, event: events.Phase, process: ProcessView) -> None:
        if process.rank:
            return
        outer = [phase for phase in self._open_phases if phase.name != event.name]
        self._open_phases = outer if event.state == "end" else [*outer, event]
        self.phase = self._open_phases[-1] if self._open_phases else event

    def _judge(self) -> None:
        """Let the health rules see the new rows; where rows were superseded they start over."""
        tables = (self.series.train, self.series.eval)
        newest = max(self.attempts, default=0)
        profile = self.attempts[newest].profile if newest else {}
        context = self._context if profile is self._judged_profile else Context.of_profile(profile)
        self._judged_profile = profile
        order = (newest, *(table.out_of_order() for table in tables))
        start_over = order != self._judged_order or context != self._context
        if start_over:
            self._judged_order, self._context = order, context
            self.diagnosis = Diagnosis(context)
        for at, table in enumerate(tables):
            if start_over:
                self.diagnosis.feed(table.rows(table.effective_rows()))
            elif self._judged[at] < len(table):
                self.diagnosis.feed(table.tail(self._judged[at]))
            self._judged[at] = len(table)
