"""From a key to a request and to its answer: asks first, works off the event loop, tells each turn."""

from __future__ import annotations

import asyncio
from typing import Any

import click
from textual.app import App

from dpo_telemetry.text import printable
from dpo_tui.control import WISHES, Control, Heard, NoControl, Requests, Wish
from dpo_tui.screens.control import ControlScreen
from dpo_tui.snapshot import Snapshot

TOAST_S = 10.0


class Asking:
    """The control of the run that is open."""

    def __init__(self, app: App[Any], control: Control) -> None:
        self._app = app
        self._control = control
        self._requests = Requests()

    @property
    def possible(self) -> bool:
        """Whether there is a way to ask at all; only an attempt tells whether it is allowed."""
        return not isinstance(self._control, NoControl)

    def begin(self, wish: Wish, snapshot: Snapshot | None) -> None:
        """Ask the user, then the run."""
        self._app.run_worker(self._ask(wish, snapshot), group="control", exit_on_error=False)

    def see(self, snapshot: Snapshot) -> None:
        """Tell what the run says of the open requests."""
        heard = Heard(
            requests=snapshot.requests,
            answers=snapshot.answers,
            attempt=snapshot.attempt,
            status=snapshot.status,
            now_s=snapshot.now_s,
        )
        for told in self._requests.take(heard):
            self._app.notify(told.text, severity=told.severity, timeout=TOAST_S, markup=False)

    async def _ask(self, wish: Wish, snapshot: Snapshot | None) -> None:
        what = WISHES[wish]
        try:
            refusal = await asyncio.to_thread(self._control.refusal)
        except click.ClickException as error:
            refusal = error.message
        if refusal or snapshot is None or snapshot.status.ended:
            state = "is not known yet" if snapshot is None else f"has {snapshot.status.state}"
            self._tell(f"{what}: {refusal or f'the run {state}; nobody is there to answer'}", failed=True)
            return
        if isinstance(self._app.screen, ControlScreen):
            return  # the key was pressed twice
        if not await self._app.push_screen_wait(ControlScreen(wish, snapshot)):
            return
        try:
            asked = await asyncio.to_thread(self._control.ask, wish, snapshot.now_s)
        except click.ClickException as error:
            self._tell(f"{what} was refused: {error.message}", failed=True)
            return
        self._requests.add(asked)
        self._tell(f"{what}: asked; waiting for the run")

    def _tell(self, text: str, *, failed: bool = False) -> None:
        self._app.notify(
            printable(text), severity="error" if failed else "information", timeout=TOAST_S, markup=False
        )
