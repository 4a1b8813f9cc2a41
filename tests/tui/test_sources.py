"""A run is read to its last byte, whoever brings the bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.tui.conftest import RunBuilder

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import Chunk, DirectorySource, Link
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_tui import sources
from dpo_tui.logtail import FIRST_LOOK_BYTES, MAX_LINES, LogTail
from dpo_tui.sources import KeeperOrDirectory, open_run


class Keeper(DirectorySource):
    """Stands for a keeper that hands out the same files and can fall silent."""

    link: Link = "live"
    closed = False

    def poll(self) -> list[Chunk]:
        return super().poll() if self.link == "live" else []

    def read_log(self, file: str, start: int, end: int) -> bytes:
        return super().read_log(file, start, end) if self.link == "live" else b""

    def close(self) -> None:
        self.closed = True


def read(model: RunModel, source: KeeperOrDirectory) -> RunModel:
    while chunks := source.poll():
        model.apply(chunks)
    return model


def test_every_step_arrives_once_while_the_keeper_comes_and_goes(live_run: RunBuilder) -> None:
    keeper = Keeper(live_run.run)
    source = KeeperOrDirectory(live_run.run, lambda: keeper)
    model = RunModel()
    step = 120
    for link in ("live", "stale", "lost", "live", "lost", "live"):
        keeper.link = link
        step += 1
        live_run.step(step)
        live_run.flush()
        read(model, source)
        assert source.link == link
        assert model.last_step == step
    assert model.series.effective("loss").steps.tolist() == list(range(1, step + 1))
    assert len(model.series.train) == step
    source.close()
    assert keeper.closed


def test_a_run_without_a_keeper_is_read_from_its_directory(live_run: RunBuilder) -> None:
    source = open_run(live_run.run)
    assert source.link == "file"
    assert read(RunModel(), source).last_step == 120


def test_a_keeper_that_starts_later_is_found(live_run: RunBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LOOK_FOR_KEEPER_S", -1.0)
    found: list[Keeper | None] = [None, None, Keeper(live_run.run)]
    source = KeeperOrDirectory(live_run.run, lambda: found.pop(0))
    model = RunModel()
    model.apply(source.poll())
    assert source.link == "file"
    live_run.step(121)
    live_run.flush()
    model.apply(source.poll())
    assert str(source.link) == "live"
    assert model.last_step == 121
    assert len(model.series.train) == 121


def test_what_is_no_run_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TelemetryError, match="not a run directory"):
        open_run(RunDirectory(tmp_path))


def test_the_log_shows_what_a_terminal_would(live_run: RunBuilder) -> None:
    tail, source = LogTail(), DirectorySource(live_run.run)
    live_run.log("10%|#   |\r50%|##  |\r100%|####|\nred \x1b[31mtext\x1b[0m\nunfinished")
    assert tail.poll(source, 1)
    assert tail.lines()[-3:] == ("100%|####|", "red text", "unfinished")
    assert not tail.poll(source, 1)
    live_run.log(" line\n")
    assert tail.poll(source, 1)
    assert tail.lines()[-1] == "unfinished line"


def test_of_a_long_log_the_end_is_read(live_run: RunBuilder) -> None:
    live_run.log("x" * 99 + "\n")
    live_run.log(("y" * 99 + "\n") * 120_000)
    live_run.log("the end\n")
    calls: list[int] = []

    class Counting(DirectorySource):
        def read_log(self, file: str, start: int, end: int) -> bytes:
            data = super().read_log(file, start, end)
            calls.append(len(data))
            return data

    tail = LogTail()
    tail.poll(Counting(live_run.run), 1)
    assert tail.lines()[-1] == "the end"
    assert len(tail.lines()) <= MAX_LINES
    assert sum(calls) < 2 * FIRST_LOOK_BYTES
    assert os.path.getsize(live_run.attempt.log_file(0)) > 10 * FIRST_LOOK_BYTES
