"""Where each file of a run lies. The tree is drawn in `docs/run-directory.md`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dpo_telemetry.errors import TelemetryError
from dpo_telemetry.events import NOT_READABLE

_ATTEMPT = re.compile(r"^\d{3,}$")


class RunInfo(msgspec.Struct, frozen=True):
    """`run.json`: written once, when the run is made."""

    id: str
    name: str
    created: float
    """Seconds since the epoch."""
    host: str


@dataclass(frozen=True)
class Attempt:
    """One start or resume of a run, with files of its own."""

    path: Path

    @property
    def number(self) -> int:
        """1 for the first start."""
        return int(self.path.name)

    @property
    def profile_file(self) -> Path:
        """The resolved profile, every default written out."""
        return self.path / "profile.toml"

    @property
    def plan_file(self) -> Path:
        """The VRAM plan made before the start."""
        return self.path / "plan.json"

    @property
    def events_dir(self) -> Path:
        """Event files, one writer each."""
        return self.path / "events"

    @property
    def logs_dir(self) -> Path:
        """Raw stdout and stderr of the ranks."""
        return self.path / "logs"

    def event_file(self, writer: str) -> Path:
        """Event file of "rank-00000", "agent-HOST" or "keeper-1"."""
        return self.events_dir / f"{writer}.jsonl"

    def log_file(self, rank: int) -> Path:
        """Raw output of one rank."""
        return self.logs_dir / f"rank-{rank:05d}.log"

    def launcher_log(self, host: str) -> Path:
        """Raw output of the program that starts several ranks on one host."""
        return self.logs_dir / f"launcher-{host}.log"

    def exit_file(self, host: str) -> Path:
        """How the job on one host ended; written last by its agent."""
        return self.path / f"exit-{host}.json"

    def ended(self) -> bool:
        """Whether an agent has recorded the end of this attempt."""
        return any(self.path.glob("exit-*.json"))


@dataclass(frozen=True)
class RunDirectory:
    """A run directory that exists or is about to."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name, which is how users call the run."""
        return self.path.name

    @property
    def run_file(self) -> Path:
        """Identity of the run."""
        return self.path / "run.json"

    @property
    def state_file(self) -> Path:
        """The keeper's summary; derivable from the rest."""
        return self.path / "state.json"

    @property
    def attempts_dir(self) -> Path:
        """Attempts by number."""
        return self.path / "attempts"

    @property
    def control_dir(self) -> Path:
        """Control requests, one file each."""
        return self.path / "control"

    @property
    def checkpoints_dir(self) -> Path:
        """Checkpoints by step."""
        return self.path / "checkpoints"

    @property
    def adapter_dir(self) -> Path:
        """The final adapter in PEFT's format."""
        return self.path / "adapter"

    @property
    def keeper_log(self) -> Path:
        """What the keeper says of itself, tracebacks included."""
        return self.path / "keeper.log"

    def attempt(self, number: int) -> Attempt:
        """One attempt by number, whether it exists or not."""
        return Attempt(self.attempts_dir / f"{number:03d}")

    def attempts(self) -> list[Attempt]:
        """The attempts that exist, oldest first."""
        try:
            names = sorted((p.name for p in self.attempts_dir.iterdir() if _ATTEMPT.match(p.name)), key=int)
        except OSError:
            return []
        return [Attempt(self.attempts_dir / name) for name in names]

    def info(self) -> RunInfo:
        """Identity of the run.

        Raises:
            TelemetryError: this is not a run directory, or its run.json is damaged.
        """
        try:
            return msgspec.json.decode(self.run_file.read_bytes(), type=RunInfo)
        except FileNotFoundError:
            raise TelemetryError(
                f"{self.path}: not a run directory (it has no run.json); see `dpo-daemon list`"
            ) from None
        except NotADirectoryError:
            raise TelemetryError(f"{self.path}: is a file, not a run directory") from None
        except NOT_READABLE as error:
            raise TelemetryError(
                f"{self.run_file}: damaged: {error}; restore it from a copy of the run"
            ) from error
