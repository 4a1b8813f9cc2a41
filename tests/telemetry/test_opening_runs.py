"""A large run is opened by several processes, and from an index the next time: it is the same run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import platformdirs
import psutil
import pytest

from dpo_telemetry import events
from dpo_telemetry.cli import APP_NAME
from dpo_telemetry.reader import backlog as backlogs
from dpo_telemetry.reader import index
from dpo_telemetry.reader.backlog import Backlog
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.source import DirectorySource
from dpo_telemetry.rundir.create import create_attempt
from dpo_telemetry.rundir.layout import RunDirectory

from .conftest import Lines
from .test_long_logs import STEPS, file_of, step
from .test_reading_runs import append, end, read, seen

NewRun = Callable[[], RunDirectory]


@pytest.fixture
def small_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlogs, "STRETCH_BYTES", 100_000)
    monkeypatch.setattr(backlogs, "LINE_BYTES", 50)


@pytest.fixture
def large_run(new_run: NewRun, small_stretches: None) -> RunDirectory:
    """Two attempts; the second repeats steps, and ends in the middle of a line."""
    run, lines = new_run(), Lines()
    between = {
        7: lines.evaluation(7, eval_loss=0.5),
        8: b"torn{\n",
        9: lines.event(events.Memory(**lines.stamp(), phase="train", components={"adapters": 5})),
    }
    append(run, file_of(lines, between))
    append(run, lines.heartbeat() + lines.exit(1), writer="rank-00001")
    end(run, 1)
    create_attempt(run, "[loss]\nbeta = 0.2\n", b"{}")
    again = [lines.start(resumed_from_step=400), *(step(lines, at, epoch=1.0) for at in range(401, 1101))]
    append(run, b"".join(again) + b'{"k":"step","v":1', attempt=2)
    return run


def opened(run: RunDirectory) -> RunModel:
    """As a window opens it: what is there from the backlog, the rest from the source."""
    backlog, model, source = Backlog(run), RunModel(), DirectorySource(run)
    model.apply(backlog.profiles())
    for chunk in backlog.chunks():
        model.apply([chunk])
    source.skip_to(backlog.offsets())
    while chunks := source.poll():
        model.apply(chunks)
    return model


def test_a_run_that_several_processes_decode_is_the_run(large_run: RunDirectory) -> None:
    assert len(Backlog(large_run).stretches) > 3
    assert seen(opened(large_run)) == seen(read(large_run))


@pytest.mark.parametrize("program", ["/bin/false", "/bin/cat", "/nowhere/python"])
def test_without_other_processes_it_is_decoded_here(
    program: str, large_run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    assert seen(opened(large_run)) == seen(read(large_run))


def test_a_process_that_is_killed_costs_nothing_but_time(large_run: RunDirectory) -> None:
    backlog, model = Backlog(large_run), RunModel()
    model.apply(backlog.profiles())
    chunks = backlog.chunks()
    model.apply([next(chunks)])
    for child in psutil.Process().children():
        child.kill()
    model.apply(chunks)
    source = DirectorySource(large_run)
    source.skip_to(backlog.offsets())
    model.apply(source.poll())
    assert seen(model) == seen(read(large_run))


def test_an_opening_that_is_given_up_leaves_no_process(large_run: RunDirectory) -> None:
    chunks = Backlog(large_run).chunks()
    next(chunks)
    assert psutil.Process().children()
    chunks.close()
    assert not psutil.Process().children()


def test_a_backlog_says_how_much_of_it_is_read(large_run: RunDirectory) -> None:
    backlog = Backlog(large_run)
    shares = [backlog.read_bytes / backlog.total_bytes for _ in backlog.chunks()]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_line_longer_than_a_stretch_is_not_cut(new_run: NewRun, small_stretches: None) -> None:
    run, lines = new_run(), Lines()
    note = events.Phase(**lines.stamp(), name="load", state="progress", message="x" * 300_000)
    append(run, file_of(lines) + lines.event(note) + step(lines, STEPS + 1))
    assert seen(opened(run)) == seen(read(run))


@pytest.mark.parametrize("data", [b"", b"no line ends here", b"\n"])
def test_files_without_events_are_no_trouble(data: bytes, new_run: NewRun, small_stretches: None) -> None:
    run = new_run()
    append(run, data)
    assert seen(opened(run)) == seen(read(run))


def kept(run: RunDirectory) -> Path:
    """The index of the run, made as a window makes it."""
    backlog, model = Backlog(run), RunModel()
    model.apply(backlog.profiles())
    writer = index.IndexWriter(backlog)
    for chunk in backlog.chunks():
        model.apply([chunk])
        writer.add(chunk)
    writer.finish(model.rule_alerts())
    folder = Path(platformdirs.user_cache_dir(APP_NAME)) / "runs"
    return max(folder.glob("*.index"), key=lambda path: path.stat().st_mtime)


def restored(run: RunDirectory) -> RunModel:
    backlog, model, source = Backlog(run), RunModel(), DirectorySource(run)
    found = index.load(backlog)
    assert found is not None
    model.restore([*backlog.profiles(), *found.chunks], found.alerts)
    source.skip_to(backlog.offsets())
    while chunks := source.poll():
        model.apply(chunks)
    return model


def without_rules(model: RunModel) -> dict[str, object]:
    """Everything but the rules' own findings, which a restored model has only as alerts."""
    return {name: value for name, value in seen(model).items() if name != "findings"}


def test_a_run_from_its_index_is_the_run(large_run: RunDirectory) -> None:
    kept(large_run)
    model = restored(large_run)
    assert without_rules(model) == without_rules(read(large_run))
    assert model.alerts == read(large_run).alerts


def test_a_restored_run_that_goes_on_is_judged_again(large_run: RunDirectory) -> None:
    kept(large_run)
    model, lines = restored(large_run), Lines()
    rest = b',"t":1.0,"m":1.0,"step":1101,"metrics":{"loss":"nan"}}\n' + step(lines, 1102)
    append(large_run, rest, attempt=2)
    source = DirectorySource(large_run)
    source.skip_to(model.offsets())
    model.apply(source.poll())
    assert seen(model) == seen(read(large_run))
    assert "nonfinite" in {alert.code for alert in model.alerts}


@pytest.mark.parametrize("change", ["grown", "touched", "profile", "rules"])
def test_an_index_of_another_state_is_not_taken(
    change: str, large_run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(large_run)
    file = large_run.attempt(2).event_file("rank-00000")
    match change:
        case "grown":
            append(large_run, b"\n", attempt=2)
        case "touched":
            os.utime(file, (1, 1))
        case "profile":
            (large_run.attempt(2).path / "profile.toml").write_text("[loss]\nbeta = 0.3\n")
        case "rules":
            monkeypatch.setattr(index, "code_digest", lambda: b"another")
    assert index.load(Backlog(large_run)) is None


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_an_index_that_was_cut_off_is_not_there(share: float, large_run: RunDirectory) -> None:
    path = kept(large_run)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert index.load(Backlog(large_run)) is None


def test_a_broken_index_is_not_there_or_gives_some_numbers_and_never_raises(large_run: RunDirectory) -> None:
    path = kept(large_run)
    good = path.read_bytes()
    random = np.random.default_rng(1)
    for _ in range(200):
        bad = bytearray(good)
        for at in random.integers(max(0, len(bad) - 3000), len(bad), 3):
            bad[at] = random.integers(0, 256)
        path.write_bytes(bytes(bad))
        found = index.load(Backlog(large_run))
        if found is not None:
            RunModel().restore(found.chunks, found.alerts)


def test_the_oldest_indexes_go_when_they_take_too_much(
    large_run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kept(large_run)
    older, oldest = path.with_name("a.index"), path.with_name("b.index")
    for other, time_s in ((older, 1000), (oldest, 500)):
        other.write_bytes(bytes(path.stat().st_size))
        os.utime(other, (time_s, time_s))
    monkeypatch.setattr(index, "KEPT_BYTES", 2 * path.stat().st_size + 10)
    kept(large_run)
    assert sorted(found.name for found in path.parent.glob("*.index")) == sorted([path.name, older.name])


def test_an_index_that_is_given_up_leaves_nothing(large_run: RunDirectory) -> None:
    backlog = Backlog(large_run)
    writer = index.IndexWriter(backlog)
    writer.add(next(backlog.chunks()))
    writer.give_up()
    assert list((Path(platformdirs.user_cache_dir(APP_NAME)) / "runs").iterdir()) == []


def test_bytes_that_are_no_text_pass_through_processes_and_index(
    new_run: NewRun, small_stretches: None
) -> None:
    run, lines = new_run(), Lines()
    append(run, file_of(lines, {7: b'{"k":"phase","message":"\xff\xfe"}\n', 500: b"\xc3\x28\n"}))
    end(run)
    assert seen(opened(run)) == seen(read(run))
    kept(run)
    assert without_rules(restored(run)) == without_rules(read(run))


def test_while_an_attempt_lives_a_page_that_has_not_arrived_ends_the_backlog(
    new_run: NewRun, small_stretches: None
) -> None:
    run, lines = new_run(), Lines()
    whole = file_of(lines)
    hole = len(whole) - 3000
    file = run.attempt(1).event_file("rank-00000")
    file.write_bytes(whole[:hole] + bytes(1000) + whole[hole + 1000 :])
    backlog = Backlog(run)
    assert max(stretch.end for stretch in backlog.stretches) <= hole
    model = opened(run)
    file.write_bytes(whole)
    source = DirectorySource(run)
    source.skip_to(model.offsets())
    model.apply(source.poll())
    assert seen(model) == seen(read(run))


def test_two_windows_that_keep_the_same_run_do_not_mix_what_they_write(large_run: RunDirectory) -> None:
    backlog = Backlog(large_run)
    first, second = index.IndexWriter(backlog), index.IndexWriter(Backlog(large_run))
    chunks = list(backlog.chunks())
    for chunk in chunks:
        first.add(chunk)
    second.add(chunks[0])
    first.finish([])
    second.give_up()
    assert without_rules(restored(large_run)).keys()
    assert (
        restored(large_run).series.effective("loss").values.tolist()
        == read(large_run).series.effective("loss").values.tolist()
    )
