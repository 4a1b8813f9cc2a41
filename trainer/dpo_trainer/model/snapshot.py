"""A few files of a hub repository, or word that nobody who has them answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import httpx2
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.errors import RepositoryNotFoundError as NotOnHubError

from dpo_trainer.errors import TrainerError, first_line
from dpo_trainer.model import reach

_UNREACHABLE = (LocalEntryNotFoundError, httpx2.TransportError, ConnectionError, TimeoutError)


def snapshot(name: str, files: Sequence[str], *, field: str, revision: str = "") -> Path | None:
    """Folder with those `files` (glob patterns) that the repository `name` has.

    None where the hub does not answer and its cache holds nothing of the repository.

    Args:
        field: the profile's field that names the repository, for the error's line.

    Raises:
        TrainerError: the hub answers, and does not give them.
    """
    online = reach.hub_answers()
    reach.set_offline(not online)
    try:
        folder = snapshot_download(
            name, revision=revision or None, allow_patterns=list(files), local_files_only=not online
        )
    except GatedRepoError as error:
        raise TrainerError(f"{field}: {name}: access has to be asked for on the hub's page") from error
    except RevisionNotFoundError as error:
        raise TrainerError(f"{field}: {name} has no revision {revision}; correct it") from error
    except NotOnHubError as error:
        raise TrainerError(f"{field}: {name}: is not on the hub, nor a folder here") from error
    except _UNREACHABLE:
        return None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise TrainerError(f"{field}: {name}: cannot be fetched: {first_line(error)}") from error
    return Path(folder)
