"""Where preference rows come from: the shipped file, a local file, or the hub."""

from __future__ import annotations

from pathlib import Path

import datasets
from datasets import Dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from dpo_profiles.data import shipped_pairs_path
from dpo_profiles.schema import Data
from dpo_trainer.errors import TrainerError
from dpo_trainer.model import reach

_BUILDERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}


def load_rows(data: Data) -> Dataset:
    """The rows of the profile's data set, in their own order.

    Raises:
        TrainerError: the file is missing, damaged, empty or lacks a column, or the hub does not
            answer and there is no copy in its cache.
    """
    rows = _load(data)
    where = f"data.name: {data.name}"
    if len(rows) == 0:
        raise TrainerError(f"{where}: holds no rows; give a data set with preference pairs")
    missing = [column for column in ("chosen", "rejected") if column not in rows.column_names]
    if missing:
        raise TrainerError(
            f"{where}: has no column {' and '.join(missing)} (it has {', '.join(rows.column_names)}); "
            "rename the columns or give another data set"
        )
    return rows


def _load(data: Data) -> Dataset:
    if data.name == "shipped":
        return _load_file(shipped_pairs_path(), data)
    path = Path(data.name).expanduser()
    if path.suffix in _BUILDERS or path.exists() or data.name.startswith((".", "/", "~")):
        return _load_file(path, data)
    return _load_from_hub(data)


def _load_file(path: Path, data: Data) -> Dataset:
    where = f"data.name: {path}"
    if not path.is_file():
        raise TrainerError(f"{where}: there is no such file; give a .jsonl or .parquet file")
    if path.suffix not in _BUILDERS:
        raise TrainerError(f"{where}: is neither .jsonl nor .parquet; convert it or rename it")
    if path.stat().st_size == 0:
        raise TrainerError(f"{where}: holds no rows; give a data set with preference pairs")
    try:
        return datasets.load_dataset(_BUILDERS[path.suffix], data_files=str(path), split="train")
    except (DatasetGenerationError, ValueError, OSError) as error:
        reason = error.__cause__ or error
        raise TrainerError(f"{where}: cannot be read: {_first_line(reason)}") from error


def _load_from_hub(data: Data) -> Dataset:
    where = f"data.name: {data.name}"
    online = reach.hub_answers()
    reach.set_offline(not online)
    try:
        return datasets.load_dataset(data.name, split=data.split, revision=data.revision or None)
    except DatasetNotFoundError as error:
        raise TrainerError(f"{where}: is not on the hub, nor a file here; check the name") from error
    except (DatasetGenerationError, ValueError, OSError) as error:
        if not online:
            raise TrainerError(
                f"{where}: the hub does not answer and there is no copy in its cache; "
                "give a local .jsonl or .parquet file"
            ) from error
        raise TrainerError(f"{where}: cannot be read: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
