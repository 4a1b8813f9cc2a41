"""The one door through which a rank's events leave, and what it is doing now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dpo_telemetry import events
from dpo_telemetry.events import Event, PhaseName, Severity
from dpo_telemetry.writer import EventWriter
from dpo_trainer.emit.memory import MemoryMeter

HEARTBEAT_S = 1.0


class Emitter:
    """Writes events of one rank and keeps its phase and step for the heartbeat."""

    def __init__(self, writer: EventWriter, memory: MemoryMeter) -> None:
        self._writer = writer
        self.memory = memory
        self.phase: PhaseName = "load"
        self.step: int | None = None
        self._open_phase: PhaseName | None = None
        writer.set_heartbeat(HEARTBEAT_S, self._heartbeat)

    def put(self, event: Event) -> None:
        """Queue one event; never blocks."""
        self._writer.put(event)

    def alert(
        self, code: str, severity: Severity, message: str, *, metric: str | None = None, advice: str = ""
    ) -> None:
        """Say that something is wrong, at the step of now."""
        self.put(
            events.Alert(
                **events.stamp(),
                code=code,
                severity=severity,
                message=message,
                metric=metric,
                step=self.step,
                advice=advice,
            )
        )

    @contextmanager
    def in_phase(self, name: PhaseName, *, total: float | None = None, unit: str = "") -> Iterator[None]:
        """A phase from begin to end, with the memory at its end; afterwards the outer one goes on."""
        outer, self._open_phase, self.phase = self._open_phase, name, name
        self._phase("begin", total=total, unit=unit)
        try:
            yield
        finally:
            self._phase("end")
            self.measure()
            self._open_phase = outer
            if outer is not None:
                self.phase = outer
                self.progress(self.step or 0)

    def progress(self, done: float, total: float | None = None, unit: str = "", message: str = "") -> None:
        """The phase of now has moved on."""
        self._phase("progress", done=done, total=total, unit=unit, message=message)

    def measure(self) -> None:
        """Tell the memory of now."""
        self.put(self.memory.event(self.phase, self.step))

    def _phase(
        self,
        state: str,
        done: float | None = None,
        total: float | None = None,
        unit: str = "",
        message: str = "",
    ) -> None:
        self.put(
            events.Phase(
                **events.stamp(),
                name=self.phase,
                state=state,  # type: ignore[arg-type]
                done=done,
                total=total,
                unit=unit,
                message=message,
                step=self.step,
            )
        )

    def _heartbeat(self) -> Event:
        return events.Heartbeat(**events.stamp(), phase=self.phase, step=self.step)
