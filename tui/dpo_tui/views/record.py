"""Configuration and timeline of a run, made again only when something of it changed."""

from __future__ import annotations

from dataclasses import dataclass

from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import Source
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_tui.views.config import Config, config_key, take_config
from dpo_tui.views.timeline import Timeline, take_timeline, timeline_key
from dpo_tui.wants import ScreenName


@dataclass(frozen=True, slots=True)
class RecordView:
    """What one of the two screens shows; the other part may be older."""

    config: Config
    timeline: Timeline


class RecordTaker:
    """Hands out the same view until its part of the model changed. Lives in the receiver's thread."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[object, ...]] = {}
        self._view = RecordView(Config(), Timeline())

    def take(self, model: RunModel, source: Source, screen: ScreenName) -> RecordView | None:
        """What the screen in front needs; None where it needs none of it."""
        if screen == "config" and self._changed("config", config_key(model)):
            self._view = RecordView(take_config(model, _place(source)), self._view.timeline)
        elif screen == "timeline" and self._changed("timeline", timeline_key(model)):
            self._view = RecordView(self._view.config, take_timeline(model))
        return self._view if screen in ("config", "timeline") else None

    def _changed(self, part: str, key: tuple[object, ...]) -> bool:
        changed = self._keys.get(part) != key
        self._keys[part] = key
        return changed


def _place(source: Source) -> str | None:
    """Path of the run directory, where it can be reached from here."""
    run = getattr(source, "run", None)
    return str(run.path) if isinstance(run, RunDirectory) else None
