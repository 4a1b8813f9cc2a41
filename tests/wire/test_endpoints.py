"""Where sockets lie, and which places are refused."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.rundir.create import create_run
from dpo_telemetry.wire import endpoints


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dpo-", dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def test_sockets_lie_in_a_folder_that_only_the_owner_may_enter(runtime: Path) -> None:
    where = endpoints.prepare("a run id")
    assert where.folder.parent == runtime / "dpo"
    for folder in (where.folder, where.folder.parent):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_an_over_long_runtime_folder_gives_way_to_one_that_fits(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = runtime / ("d" * 90)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    where = endpoints.prepare("a run id")
    assert len(str(where.publish)) <= endpoints.MAX_SOCKET_PATH_BYTES
    assert deep not in where.folder.parents
    where.folder.rmdir()


def test_a_folder_that_others_may_enter_is_refused_with_the_mend(runtime: Path) -> None:
    where = endpoints.prepare("a run id")
    where.folder.chmod(0o755)
    with pytest.raises(TelemetryError, match=r"others may enter it; run `chmod 700"):
        endpoints.check_private(where.folder)


def test_a_link_in_the_place_of_the_folder_is_refused(runtime: Path) -> None:
    target = runtime / "elsewhere"
    target.mkdir(mode=0o700)
    link = runtime / "link"
    link.symlink_to(target)
    with pytest.raises(TelemetryError, match="is not a folder"):
        endpoints.check_private(link)


def test_a_run_without_a_keeper_has_no_endpoints(runtime: Path, tmp_path: Path) -> None:
    run = create_run(tmp_path, "demo")
    assert endpoints.of_run(run) is None
    endpoints.prepare(run.info().id)
    assert endpoints.of_run(run) is None


def test_a_folder_that_cannot_be_looked_into_holds_no_endpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may look everywhere, so the folder is one whose content has too long a path."""
    deep = tmp_path
    while (left := os.pathconf("/", "PC_PATH_MAX") - 8 - len(str(deep))) > 1:
        deep /= "d" * min(200, left - 1)
    deep.mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    assert endpoints.candidate_folders()[0].parent == deep
    assert endpoints.of_run(create_run(tmp_path, "demo")) is None


def test_a_socket_file_whose_process_is_gone_is_told_from_one_that_listens(runtime: Path) -> None:
    path = runtime / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert endpoints.listens(path)
    assert path.exists()
    assert not endpoints.listens(path)


def test_a_client_refuses_sockets_that_others_could_swap(runtime: Path, tmp_path: Path) -> None:
    run = create_run(tmp_path, "demo")
    endpoints.prepare(run.info().id).folder.chmod(0o777)
    with pytest.raises(TelemetryError, match="others may enter it"):
        endpoints.of_run(run)
