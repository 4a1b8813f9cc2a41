"""The monitor: one receiving thread, one timer that draws, screens that only show snapshots."""

from __future__ import annotations

import time
from typing import ClassVar

from textual import on, work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.worker import Worker, WorkerState, get_current_worker

from dpo_telemetry.reader.source import Source
from dpo_tui.messages import Received
from dpo_tui.receiver import Clock, Receiver
from dpo_tui.screens.help import HelpScreen
from dpo_tui.screens.log import LogScreen
from dpo_tui.screens.overview import OverviewScreen
from dpo_tui.screens.screen import RunScreen
from dpo_tui.signs import UNICODE, Signs
from dpo_tui.snapshot import Snapshot
from dpo_tui.theme import DECK

FRAMES_PER_S = 5
RECEIVE_EVERY_S = 0.2


class MonitorApp(App[None]):
    """Shows one run, live or finished."""

    TITLE = "dpo-tui"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("l", "log", "Log"),
    ]

    def __init__(
        self, source: Source, name: str, *, clock: Clock = time.time, signs: Signs = UNICODE
    ) -> None:
        super().__init__()
        self.register_theme(DECK)
        self.theme = DECK.name
        self.snapshot: Snapshot | None = None
        self.failure: BaseException | None = None
        """What ended the app, for the command line to render; None when the user quit."""
        self._source = source
        self._run_name = name
        self._clock = clock
        self._signs = signs
        self.drawn: Snapshot | None = None
        """The snapshot that is on the screen."""

    def get_default_screen(self) -> OverviewScreen:
        """The screen that everything starts from."""
        return OverviewScreen(self._signs)

    def on_mount(self) -> None:
        """Start to receive and to draw."""
        self.receive()
        self.set_interval(1 / FRAMES_PER_S, self.draw_frame)

    @work(thread=True, exclusive=True, exit_on_error=False, group="receiver")
    def receive(self) -> None:
        """Follow the source until the app ends; touches no widget."""
        worker = get_current_worker()
        receiver = Receiver(self._source, self._run_name, self._clock)
        try:
            while not worker.is_cancelled:
                self.post_message(Received(receiver.receive()))
                worker.cancelled_event.wait(RECEIVE_EVERY_S)
        finally:
            self._source.close()

    @on(Received)
    def keep_snapshot(self, message: Received) -> None:
        """The first snapshot is drawn at once, later ones with the next frame."""
        first = self.snapshot is None
        self.snapshot = message.snapshot
        if first:
            self.draw_frame()

    @on(Worker.StateChanged)
    def end_on_failure(self, event: Worker.StateChanged) -> None:
        """Without its receiver the monitor would show a picture that never changes."""
        if event.state is WorkerState.ERROR:
            self.failure = event.worker.error
            self.exit(return_code=2)

    def draw_frame(self) -> None:
        """Hand the newest snapshot to the screens that show one."""
        if self.snapshot is None or self.snapshot is self.drawn:
            return
        for screen in self.screen_stack:
            if isinstance(screen, RunScreen) and screen.ready:
                screen.show(self.snapshot)
                self.drawn = self.snapshot

    def action_help(self) -> None:
        """Open the page with the keys."""
        self.push_screen(HelpScreen(self._signs))

    async def action_log(self) -> None:
        """Open the log."""
        screen = LogScreen(self._signs)
        await self.push_screen(screen)
        if self.snapshot is not None:
            screen.show(self.snapshot)
