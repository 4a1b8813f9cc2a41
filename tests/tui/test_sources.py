"""A run is read to its last byte, whoever brings the bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tui.conftest import RunBuilder, drawn

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import Chunk, DirectorySource, Link
from dpo_telemetry.reader.status import Status
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_tui import sources
from dpo_tui.app import MonitorApp
from dpo_tui.follow import Follower
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


OTHER_VERSION = "the keeper speaks protocol 2, this client 1; update the client"


@pytest.mark.parametrize(
    ("width", "says"), [(120, OTHER_VERSION), (80, OTHER_VERSION), (40, "keeper of another version")]
)
async def test_a_keeper_that_cannot_be_understood_says_why_and_the_run_goes_on(
    live_run: RunBuilder, width: int, says: str
) -> None:
    keeper = Keeper(live_run.run)
    keeper.link, keeper.problem = "lost", OTHER_VERSION
    source = KeeperOrDirectory(live_run.run, lambda: keeper)
    app = MonitorApp(source, live_run.run.name, clock=lambda: live_run.now_s)
    async with app.run_test(size=(width, 24)) as pilot:
        await drawn(app, pilot)
        assert app.snapshot is not None
        assert (app.snapshot.problem, app.snapshot.step) == (OTHER_VERSION, 120)
        first = app.screen._compositor.render_strips()[0]
        assert says in "".join(part.text for part in first)


def test_lines_say_once_why_a_keeper_cannot_be_understood() -> None:
    lines: list[str] = []
    follower = Follower(lines.append)
    for problem in (OTHER_VERSION, OTHER_VERSION, ""):
        follower.look(Status("training"), "stale", problem)
    assert lines == [f"{OTHER_VERSION}; going on from the run directory"]


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
