"""The monitor: one receiving thread, screens that only show the snapshots that it sends."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from click import ClickException
from textual import on, work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.filter import LineFilter
from textual.notifications import SeverityLevel
from textual.screen import ModalScreen
from textual.worker import Worker, WorkerState, get_current_worker

from dpo_telemetry.events import Severity
from dpo_telemetry.reader.source import Source
from dpo_telemetry.rundir.find import runs_directory
from dpo_telemetry.text import printable
from dpo_tui import settings as kept
from dpo_tui.asking import Asking
from dpo_tui.attending import Attended, Attending
from dpo_tui.commands import Commands
from dpo_tui.control import WISH_KEYS, WISHES, Control, LocalControl, NoControl, Wish
from dpo_tui.copies import Copy
from dpo_tui.messages import Received
from dpo_tui.notify import Note, Notifier, sequence
from dpo_tui.plain import AsciiFilter
from dpo_tui.receiver import Clock, Receiver
from dpo_tui.runlist import RunList
from dpo_tui.screens.alerts import AlertsScreen
from dpo_tui.screens.config import ConfigScreen
from dpo_tui.screens.control import ControlScreen
from dpo_tui.screens.copy import CopyScreen
from dpo_tui.screens.help import HelpScreen
from dpo_tui.screens.logs import LogsScreen
from dpo_tui.screens.memory import MemoryScreen
from dpo_tui.screens.metrics import MetricsScreen
from dpo_tui.screens.overview import OverviewScreen
from dpo_tui.screens.runs import RunsScreen
from dpo_tui.screens.screen import RunScreen
from dpo_tui.screens.timeline import TimelineScreen
from dpo_tui.signs import ASCII, UNICODE, Signs
from dpo_tui.snapshot import Snapshot
from dpo_tui.theme import DECK, THEMES
from dpo_tui.wants import SCREENS, ScreenName, Wants

RUN_SCREENS: tuple[type[RunScreen], ...] = (
    OverviewScreen, MetricsScreen, MemoryScreen, AlertsScreen, LogsScreen, ConfigScreen, TimelineScreen, RunsScreen,
)  # fmt: skip

OUR_THEMES = tuple(theme.name for theme in THEMES)
TOASTS: dict[Severity, SeverityLevel] = {"critical": "error", "warning": "warning", "info": "information"}
RECEIVE_EVERY_S = 0.5
"""Each look is drawn: more often costs a core, and nobody reads faster. Keys are answered at once."""


class MonitorApp(App[None]):
    """Shows one run, live or finished."""

    TITLE = "dpo-tui"
    COMMANDS: ClassVar[set[type[Commands]]] = {Commands}  # type: ignore[assignment]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("y", "copy", "Copy"),
        *(
            Binding(key, f"ask('{wish}')", WISHES[wish].capitalize(), show=False)
            for key, wish in WISH_KEYS.items()
        ),
        Binding("escape", "show('overview')", "Overview", show=False),
        *(
            Binding(str(key), f"show('{name}')", name.capitalize(), show=False)
            for key, name in enumerate(SCREENS, start=1)
        ),
    ]

    def __init__(
        self,
        source: Source | None,
        name: str = "",
        *,
        control: Control | None = None,
        runs: RunList | None = None,
        clock: Clock = time.time,
        signs: Signs = UNICODE,
        settings_file: Path | None = None,
    ) -> None:
        if os.environ.get("NO_COLOR") == "":
            # https://no-color.org: set and not empty; Textual takes an empty one for set.
            del os.environ["NO_COLOR"]
        super().__init__()
        self._settings_file = settings_file
        self.settings, self._settings_problem = kept.load(settings_file)
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = self.settings.theme if self.settings.theme in OUR_THEMES else DECK.name
        self.snapshot: Snapshot | None = None
        self.failure: BaseException | None = None
        """What ended the app, for the command line to render; None when the user quit."""
        self._first = None if source is None else (source, name, control)
        self._runs = runs or RunList(runs_directory(None))
        self._receiver: Worker[None] | None = None
        self._asking = Asking(self, NoControl("no run is open"))
        self._chosen = False
        """Whether the open run was chosen from the list."""
        self._clock = clock
        self._signs = {"auto": signs, "unicode": UNICODE, "ascii": ASCII}[self.settings.signs]
        self._ascii = AsciiFilter(enabled=self._signs is ASCII)
        self._attending = Attending(Notifier(self.tell_terminal, clock=clock), lambda: self.settings)
        self.wants = Wants()
        self.drawn: Snapshot | None = None
        """The snapshot that is on the screen."""

    async def on_mount(self) -> None:
        """Start to receive and to draw."""
        for kind in RUN_SCREENS:
            self.add_mode(kind.NAME, self._maker(kind))
        await self.switch_mode(OverviewScreen.NAME if self._first is not None else RunsScreen.NAME)
        self.theme_changed_signal.subscribe(self, lambda theme: self.change_settings(theme=theme.name))
        if self._settings_problem:
            self.say(self._settings_problem, "warning")
        if self._first is not None:
            self._follow(*self._first)

    def on_unmount(self) -> None:
        """The receiving thread ends at once, not after its pause."""
        if self._receiver is not None:
            self._receiver.cancel()
        self.wants.changed.set()

    def _maker(self, kind: type[RunScreen]) -> Callable[[], RunScreen]:
        if kind is RunsScreen:
            return partial(RunsScreen, self._signs, self._runs, self._clock)
        if kind is MetricsScreen:
            return lambda: MetricsScreen(self._signs, self.settings)
        return partial(kind, self._signs)

    def _follow(self, source: Source, name: str, control: Control | None) -> None:
        self._asking = Asking(self, control or NoControl("this is a record; there is nobody to ask"))
        self._receiver = self.receive(source, name, self.wants)

    async def open_run(self, source: Source, name: str, control: Control | None = None) -> None:
        """Show another run; what was known of the one before, its screens included, is let go."""
        if not isinstance(self.screen, RunsScreen):
            await self.switch_mode(RunsScreen.NAME)
        await self._let_go()
        self._follow(source, name, control)
        await self.action_show(OverviewScreen.NAME)

    async def _let_go(self) -> None:
        """Back to where no run is open; the list of runs stays as it is."""
        if self._receiver is not None:
            self._receiver.cancel()
            self._receiver = None
        self.workers.cancel_group(self, "control")
        if isinstance(self.screen, ControlScreen):
            await self.pop_screen()  # its question was of the run that is let go
        self.wants.changed.set()
        self.wants = Wants()
        self.snapshot = self.drawn = None
        self._asking = Asking(self, NoControl("no run is open"))
        for kind in RUN_SCREENS:
            if kind is not RunsScreen:
                await self.remove_mode(kind.NAME)
                self.add_mode(kind.NAME, self._maker(kind))

    @on(MetricsScreen.Chose)
    def keep_choice(self, message: MetricsScreen.Chose) -> None:
        """How charts are drawn is kept between sessions."""
        self.change_settings(**message.changes)

    @on(RunsScreen.Chosen)
    async def open_chosen(self, message: RunsScreen.Chosen) -> None:
        """Open what was chosen from the list; a run that cannot be followed is said, and the list stays."""
        from dpo_tui.sources import open_run

        try:
            source = await asyncio.to_thread(open_run, message.run)
        except ClickException as error:
            self.say(error.message, "error")
            return
        self._chosen = True
        await self.open_run(source, message.run.name, LocalControl(message.run))

    @work(thread=True, exclusive=True, exit_on_error=False, group="receiver")
    def receive(self, source: Source, name: str, wants: Wants) -> None:
        """Follow a source until another is opened or the app ends; touches no widget."""
        worker = get_current_worker()
        receiver = Receiver(source, name, self._clock, wants)
        try:
            while not worker.is_cancelled:
                wants.changed.clear()
                snapshot = receiver.receive()
                self.post_message(Received(snapshot, wants))
                if snapshot.reading is None and not worker.is_cancelled:
                    wants.changed.wait(RECEIVE_EVERY_S)
        finally:
            receiver.close()

    @on(Received)
    def keep_snapshot(self, message: Received) -> None:
        """Draw it, unless another run was opened meanwhile."""
        if message.wants is not self.wants:
            return
        self.snapshot = self._attending.receive(message.snapshot)
        self._asking.see(message.snapshot)
        self.draw_frame()

    @on(Attended)
    def keep_attention(self, message: Attended) -> None:
        """Keep what the user acknowledged or muted."""
        self._attending.keep(message.attention)
        if self.snapshot is not None:
            self.snapshot = replace(self.snapshot, attention=message.attention)
            self.draw_frame()

    def tell_terminal(self, note: Note) -> None:
        """Notify outside the window, between two frames, and in it."""
        if self._driver is not None:
            self._driver.write(sequence(note, os.environ))
        self.say(note.body, TOASTS[note.severity])

    @on(LogsScreen.Chosen)
    def read_log(self, message: LogsScreen.Chosen) -> None:
        """Have another log read."""
        self.wants.log = message.choice
        self.wants.changed.set()

    @on(Worker.StateChanged)
    async def end_on_failure(self, event: Worker.StateChanged) -> None:
        """Without its receiver the monitor would show a picture that never changes."""
        error = event.worker.error
        if event.state is not WorkerState.ERROR:
            return
        if event.worker.group != "receiver":
            self.say(str(error) or type(error).__name__, "error")
            return
        if event.worker is not self._receiver:
            return  # of a run that is no longer open
        if self._chosen and isinstance(error, ClickException | OSError | ValueError):
            await self.switch_mode(RunsScreen.NAME)
            await self._let_go()
            self.say(str(error) or type(error).__name__, "error")
            return
        self.failure = error
        self.exit(return_code=2)

    def draw_frame(self) -> None:
        """Hand the newest snapshot to the screens that show one."""
        if self.snapshot is None or self.snapshot is self.drawn or not self.is_running:
            return  # at the end the widgets of a screen go before the last snapshot comes
        for screen in self.screen_stack:
            if isinstance(screen, RunScreen) and screen.ready:
                screen.show(self.snapshot)
                self.drawn = self.snapshot

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """A theme of somebody else has no colours for charts and memory."""
        return DECK.variables

    def get_line_filters(self) -> Sequence[LineFilter]:
        """With plain ASCII where the terminal shows nothing else."""
        filters = super().get_line_filters()
        return [*filters, self._ascii] if self._ascii.enabled else filters

    def change_settings(self, **changes: Any) -> None:
        """Use and keep another setting; the same as before writes nothing."""
        changed = msgspec.structs.replace(self.settings, **changes)
        if changed != self.settings:
            self.settings = changed
            if problem := kept.save(self._settings_file, changed):
                self.say(problem, "warning")

    def say(self, text: str, severity: SeverityLevel = "information") -> None:
        """Show a toast; the text may be anybody's."""
        self.notify(printable(text), severity=severity, markup=False)

    def copy(self, copy: Copy) -> None:
        """Put a value or a command on the clipboard of the user's terminal (OSC 52)."""
        self.copy_to_clipboard(copy.text)
        self.say(f"copied: {copy.text}")

    def action_copy(self) -> None:
        """Choose what to copy."""
        if isinstance(self.screen, RunScreen) and (copies := self.screen.copies()):
            self.push_screen(CopyScreen(copies), lambda copy: self.copy(copy) if copy is not None else None)

    async def action_jump(self, metric: str, step: int | None = None) -> None:
        """Show a metric in the charts, at a step if one is meant."""
        await self.action_show("metrics")
        if isinstance(self.screen, MetricsScreen):
            self.screen.jump(metric, step)

    def action_help(self) -> None:
        """Open the page with the keys."""
        if isinstance(self.screen, RunScreen):
            self.push_screen(HelpScreen(self._signs, self.screen))

    @property
    def may_ask(self) -> bool:
        """Whether a run is open that may still answer."""
        return self.snapshot is not None and not self.snapshot.status.ended and self._asking.possible

    def action_ask(self, wish: Wish) -> None:
        """Ask the run for something, after the user has said yes."""
        if isinstance(self.screen, RunScreen):
            self._asking.begin(wish, self.snapshot)

    async def action_show(self, name: ScreenName) -> None:
        """Bring a screen to the front; it fills with the next snapshot."""
        if isinstance(self.screen, ModalScreen):
            return
        if self._receiver is None and name != RunsScreen.NAME:
            self.say("no run is open; choose one")
            return
        self.wants.screen = name
        self.wants.changed.set()
        await self.switch_mode(name)
        self.drawn = None
        self.draw_frame()
