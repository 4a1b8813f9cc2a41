"""Where a log comes from when it is no plain file: pipes, devices, standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.foreign import source
from dpo_telemetry.foreign.open import open_log

from . import foreign_logs as logs

DATA = logs.json_lines(logs.history(12))


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@contextmanager
def writer(path: Path, data: bytes) -> Iterator[None]:
    """Another thread that writes to a pipe, however late its reader comes."""
    thread = Thread(target=path.write_bytes, args=(data,), daemon=True)
    thread.start()
    yield
    thread.join(30)
    assert not thread.is_alive()


def test_a_pipe_that_nobody_writes_to_is_told_and_not_waited_for(
    pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "WRITER_WAIT_S", 0.0)
    with pytest.raises(TelemetryError, match="pipe: is a named pipe, and nobody writes to it"):
        open_log(pipe)


@pytest.mark.parametrize("data", [DATA, logs.packed(DATA), DATA * 2000], ids=["plain", "gzip", "long"])
def test_a_pipe_is_read_like_a_file(pipe: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(source, "WRITER_WAIT_S", 30.0)
    with writer(pipe, data):
        log = open_log(pipe)
    assert log.series.effective("loss").steps.tolist() == list(range(1, 13))
    assert log.attempts == (2000 if len(data) > len(DATA) else 1)


def test_a_writer_that_is_silent_at_first_is_waited_for(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "WRITER_WAIT_S", 0.0)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    silent = os.open(pipe, os.O_WRONLY)
    asked = os.set_blocking

    def speak(descriptor: int, blocking: bool) -> None:
        """The writer speaks once its reader has made up its mind to wait."""
        asked(descriptor, blocking)
        os.write(silent, DATA)
        os.close(silent)

    monkeypatch.setattr(os, "set_blocking", speak)
    log = open_log(pipe)
    os.close(reader)
    assert log.series.effective("loss").steps.tolist() == list(range(1, 13))


def test_a_writer_that_leaves_without_a_word_leaves_an_empty_log(
    pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "WRITER_WAIT_S", 30.0)
    with writer(pipe, b""), pytest.raises(TelemetryError, match="pipe: is empty"):
        open_log(pipe)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_log(name: str) -> None:
    with pytest.raises(TelemetryError, match=f"{name}: is a device, not a log"):
        open_log(Path(name))


def test_standard_input_that_is_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(TelemetryError, match="standard input is closed"):
        open_log(Path("-"))
