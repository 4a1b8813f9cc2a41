"""Runs are made whole, found by what people type, and listed while they live."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from dpo_telemetry import identity
from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.identity import ProcessIdentity
from dpo_telemetry.rundir import control, live
from dpo_telemetry.rundir.create import create_attempt, create_run, write_atomically
from dpo_telemetry.rundir.find import find_run, list_runs, runs_directory
from dpo_telemetry.rundir.layout import RunDirectory

NewRun = Callable[[], RunDirectory]
GONE = ProcessIdentity(boot_id=identity.boot_id(), pid=1 << 22, started=0.0)


def named(runs_dir: Path, name: str) -> RunDirectory:
    """A run under a name of the test's choosing."""
    run = create_run(runs_dir, "x")
    path = run.path.rename(runs_dir / name)
    return RunDirectory(path)


def test_a_run_is_for_its_owner_and_knows_itself(tmp_path: Path) -> None:
    run = create_run(tmp_path / "runs", "demo")
    assert run.path.parent == tmp_path / "runs"
    assert run.name == f"{time.strftime('%Y%m%d', time.localtime(run.info().created))}{run.name[8:13]}-demo"
    assert run.info().name == run.name
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
    assert run.attempts() == []


def test_a_name_that_is_taken_gets_a_counter(tmp_path: Path) -> None:
    names = {create_run(tmp_path, "demo").name for _ in range(3)}
    assert len(names) == 3
    assert any(name.endswith("-demo-2") for name in names)


def test_where_no_run_can_be_made_is_one_line_for_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(TelemetryError, match="a run cannot be made here"):
            create_run(folder, "demo")


def test_attempts_are_numbered_and_hold_their_own_profile_and_plan(new_run: NewRun) -> None:
    run = new_run()
    second = create_attempt(run, "name = 'demo'", b'{"fits": true}')
    assert [attempt.number for attempt in run.attempts()] == [1, 2]
    assert second.profile_file.read_text() == "name = 'demo'"
    assert second.plan_file.read_bytes() == b'{"fits": true}'
    assert second.events_dir.is_dir()
    assert stat.S_IMODE(second.path.stat().st_mode) == 0o700
    assert not second.ended()
    assert [path.name for path in run.attempts_dir.iterdir() if path.name.startswith(".")] == []


def test_attempts_beyond_999_stay_in_order(new_run: NewRun) -> None:
    run = new_run()
    for name in ("1000", "999", ".attempt-x", "notes"):
        (run.attempts_dir / name).mkdir()
    assert [attempt.number for attempt in run.attempts()] == [1, 999, 1000]
    assert create_attempt(run, "", b"{}").number == 1001


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    write_atomically(file, b"old")
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new"
    assert list(tmp_path.glob("*state*")) == [file]


def test_runs_live_where_the_option_the_variable_or_the_folder_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs_directory(None) == Path("runs")
    monkeypatch.setenv("DPO_RUNS_DIR", "/data/runs")
    assert runs_directory(None) == Path("/data/runs")
    assert runs_directory("here") == Path("here")


def test_a_run_is_found_by_path_by_name_and_by_a_unique_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = named(tmp_path / "runs", "20260101-0000-zero3")
    named(tmp_path / "runs", "20260102-0000-fsdp")
    for text in (
        str(run.path),
        "runs/20260101-0000-zero3",
        "runs/20260101-0000-zero3/",
        run.name,
        "20260101",
    ):
        assert find_run(text, Path("runs")).path == run.path
    monkeypatch.chdir(run.attempts_dir)
    assert find_run("..", Path("runs")).name == run.name


def test_an_exact_name_wins_over_a_longer_one(tmp_path: Path) -> None:
    run = named(tmp_path, "demo")
    named(tmp_path, "demo-2")
    assert find_run("demo", tmp_path).path == run.path


def test_what_fits_several_runs_or_none_names_those_there_are(tmp_path: Path) -> None:
    named(tmp_path, "2026-a")
    named(tmp_path, "2026-b")
    with pytest.raises(TelemetryError, match=r"2026: fits 2 runs \(2026-a, 2026-b\)"):
        find_run("2026", tmp_path)
    with pytest.raises(TelemetryError, match=r"2027: no such run .*; known are 2026-a, 2026-b"):
        find_run("2027", tmp_path)
    with pytest.raises(TelemetryError, match="holds no run; start one"):
        find_run(None, tmp_path / "empty")


def test_what_is_no_run_directory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(TelemetryError, match="folder: not a run directory"):
        find_run("folder", tmp_path / "runs")
    with pytest.raises(TelemetryError, match="not a run directory"):
        find_run(str(tmp_path / "nowhere"), tmp_path / "runs")
    with pytest.raises(TelemetryError, match="is a file, not a run directory"):
        find_run(str(tmp_path / "file"), tmp_path / "runs")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"id": 3}', b"\xff", pytest.param(b"[" * 100_000, id="deep")]
)
def test_a_damaged_run_json_is_one_line_for_the_user(new_run: NewRun, data: bytes) -> None:
    run = new_run()
    run.run_file.write_bytes(data)
    with pytest.raises(TelemetryError, match=r"run\.json: damaged"):
        find_run(str(run.path), Path("runs"))


def test_without_a_name_the_newest_run_is_meant(tmp_path: Path) -> None:
    for age, name in enumerate(("b-newest", "a", "c")):
        run = named(tmp_path, name)
        os.utime(run.run_file, (1e9 - age, 1e9 - age))
    assert find_run(None, tmp_path).name == "b-newest"
    assert [run.name for run in list_runs(tmp_path)] == ["c", "a", "b-newest"]


def test_a_live_run_is_found_from_anywhere_while_its_process_lives(tmp_path: Path) -> None:
    run = create_run(tmp_path / "elsewhere", "demo")
    named(tmp_path / "runs", "newer")
    live.register(run, identity.current())
    assert [found.path for found in live.live_runs()] == [run.path]
    assert find_run(None, tmp_path / "runs").path == run.path
    assert find_run(None, tmp_path / "runs", live_only=True).path == run.path
    assert find_run(run.name, tmp_path / "runs").path == run.path
    assert len(list_runs(tmp_path / "runs")) == 2
    live.unregister(run)
    live.unregister(run)
    assert live.live_runs() == []
    with pytest.raises(TelemetryError, match="no run is live"):
        find_run(None, tmp_path / "runs", live_only=True)


def test_with_several_live_runs_one_has_to_be_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        live.register(named(tmp_path, name), identity.current())
    with pytest.raises(TelemetryError, match=r"2 runs are live \(a, b\); name one of them"):
        find_run(None, tmp_path, live_only=True)
    assert find_run(None, tmp_path).name == "b"


def test_runs_that_ended_or_are_gone_drop_out_of_the_register(tmp_path: Path) -> None:
    dead, moved = create_run(tmp_path, "dead"), create_run(tmp_path, "moved")
    live.register(dead, GONE)
    live.register(moved, identity.current())
    moved.path.rename(tmp_path / "away")
    assert live.live_runs() == []
    live.register(dead, identity.current())
    assert [run.path for run in live.live_runs()] == [dead.path]


def test_an_entry_of_another_host_in_a_shared_home_is_left_alone(tmp_path: Path, home: Path) -> None:
    run = create_run(tmp_path, "demo")
    live.register(run, identity.current())
    (entry,) = home.rglob("live/*.json")
    data = msgspec.json.decode(entry.read_bytes())
    entry.write_bytes(msgspec.json.encode(data | {"host": "another-node"}))
    assert live.live_runs() == []
    assert entry.exists()


def test_a_damaged_register_or_run_hides_no_other_run(tmp_path: Path, home: Path) -> None:
    run, damaged = create_run(tmp_path, "demo"), create_run(tmp_path, "damaged")
    live.register(run, identity.current())
    live.register(damaged, identity.current())
    damaged.run_file.write_bytes(b"{")
    next(home.rglob("live/*.json")).with_name("torn.json").write_bytes(b"[" * 100_000)
    assert [found.path for found in live.live_runs()] == [run.path]


@contextmanager
def ordinary_user() -> Iterator[Path]:
    """A folder of a user for whom permissions count; root is nobody for a while."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() != 0:
            yield Path(name)
            return
        os.chown(name, 65534, 65534)
        os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)


def test_another_users_run_hides_none_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with ordinary_user() as folder:
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        run, closed = named(folder, "mine"), named(folder, "theirs")
        closed.path.chmod(0)
        assert [found.path for found in list_runs(folder)] == [run.path]
        closed.path.chmod(0o700)


def test_a_home_that_cannot_be_written_does_not_hide_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with ordinary_user() as folder:
        run = named(folder / "runs", "mine")
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "closed" / "state"))
        (folder / "closed").mkdir(mode=0o500)
        assert find_run(None, folder / "runs").path == run.path


def test_a_request_reaches_the_attempt_it_is_for_until_it_is_answered(new_run: NewRun) -> None:
    run = new_run()
    request = control.submit(run, "stop", issuer="ann@host", attempt=1)
    assert control.pending(run, 1) == [request]
    assert control.pending(run, 2) == []
    assert control.pending(run, 1, answered={request.id}) == []
    assert (run.control_dir / f"{request.id}.json").exists()


def test_an_expired_request_is_ignored(new_run: NewRun) -> None:
    run = new_run()
    control.submit(run, "save", issuer="ann", attempt=1, expires_in_s=-1.0)
    assert control.pending(run, 1) == []


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"id":"a"}', b"\xff", b"[" * 100_000,
             b'{"id":"a","action":"explode","issuer":"x","attempt":1,"expires":9e9}'],
)  # fmt: skip
def test_a_damaged_request_is_none(new_run: NewRun, data: bytes) -> None:
    run = new_run()
    (run.control_dir / "a.json").write_bytes(data)
    request = control.submit(run, "evaluate", issuer="ann", attempt=1)
    assert control.pending(run, 1) == [request]


def test_a_run_without_a_control_folder_has_no_requests_and_takes_one(new_run: NewRun) -> None:
    run = new_run()
    run.control_dir.rmdir()
    assert control.pending(run, 1) == []
    request = control.submit(run, "stop", issuer="ann", attempt=1)
    assert control.pending(run, 1) == [request]
