"""The command palette: everything that can be done, found by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.markup import escape

from dpo_telemetry.text import printable
from dpo_tui.screens.screen import RunScreen
from dpo_tui.theme import THEMES
from dpo_tui.wants import SCREENS

if TYPE_CHECKING:
    from dpo_tui.app import MonitorApp

SIGNS = ("auto", "unicode", "ascii")


@dataclass(frozen=True, slots=True)
class Command:
    """One line of the palette."""

    title: str
    help: str
    run: Callable[[], Any]
    listed: bool = True
    """Whether it is listed before anything was typed."""


class Commands(Provider):
    """Screens, keys of the screen in front, themes, things to copy, and every metric."""

    async def discover(self) -> Hits:
        """What is listed before anything was typed."""
        for command in self.commands():
            if command.listed:
                title = Content(command.title)
                yield DiscoveryHit(title, command.run, text=command.title, help=escape(command.help))

    async def search(self, query: str) -> Hits:
        """What matches, the nearest first."""
        matcher = self.matcher(query)
        for command in self.commands():
            score, offsets = matcher.fuzzy_search.match(query, command.title)
            if score > 0:
                title = Content(command.title)
                for offset in offsets:
                    title = title.stylize(matcher.match_style, offset, offset + 1)
                yield Hit(score, title, command.run, command.title, escape(command.help))

    def commands(self) -> Iterator[Command]:
        """All of them, as things stand."""
        app = cast("MonitorApp", self.app)
        for key, name in enumerate(SCREENS, start=1):
            yield Command(f"Show {name}", f"key {key}", partial(app.run_action, f"show('{name}')"))
        yield from self._keys()
        for theme in THEMES:
            now = "now" if theme.name == app.theme else "colours of the screen"
            yield Command(f"Theme {theme.name}", now, partial(setattr, app, "theme", theme.name))
        for signs in SIGNS:
            now = "now" if signs == app.settings.signs else "characters of the screen, from the next start"
            yield Command(f"Signs {signs}", now, partial(app.change_settings, signs=signs), listed=False)
        if isinstance(self.screen, RunScreen):
            for copy in self.screen.copies():
                yield Command(f"Copy {copy.label}", copy.text, partial(app.copy, copy))
        for metric in app.snapshot.metric_names if app.snapshot is not None else ():
            shown = printable(metric)
            yield Command(f"Metric {shown}", "its chart", partial(app.action_jump, metric), listed=False)

    def _keys(self) -> Iterator[Command]:
        """What the keys of the screen in front and those of everywhere do."""
        app = cast("MonitorApp", self.app)
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if not binding.description or binding.system or binding.action.startswith(("show(", "command_")):
                continue
            if binding.action.startswith("ask(") and not app.may_ask:
                continue
            key = self.app.get_key_display(binding)
            yield Command(
                binding.description,
                f"key {key}",
                partial(self.app.run_action, binding.action, active.node),
                listed=binding.show or binding.action.startswith("ask("),
            )
