"""What all tests share."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

POLL_S = 0.02
LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests whose system program is not installed; the summary names them."""
    for item in list(items):
        programs = [str(mark.args[0]) for mark in item.iter_markers("system")]
        missing = [program for program in programs if shutil.which(program) is None]
        if missing:
            items.remove(item)
            config.hook.pytest_deselected(items=[item])
            config.stash[LEFT_OUT].append(f"{item.nodeid} (no {', '.join(missing)})")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """With xdist the workers collect, and each of them leaves out the same tests."""
    left_out = node.config.stash[LEFT_OUT]
    left_out.extend(name for name in node.workeroutput.get("left_out", []) if name not in left_out)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash[LEFT_OUT]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if left_out := config.stash[LEFT_OUT]:
        terminalreporter.section("left out for want of a system program")
        for name in left_out:
            terminalreporter.line(name)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Waits until a condition is true, and returns what it gave; fails with `what` after the deadline."""

    def wait(condition: Callable[[], T], what: str, timeout_s: float = 30.0) -> T:
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout_s:g} s: {what}")
            time.sleep(POLL_S)
        return value

    return wait
