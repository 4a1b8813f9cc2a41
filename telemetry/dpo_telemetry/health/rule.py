"""What a health rule is: an incremental function over chunks of rows with bounded memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from dpo_telemetry.events import Severity
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.kind import Kind
from dpo_telemetry.health.thresholds import Thresholds
from dpo_telemetry.series.columns import Rows


@dataclass(frozen=True)
class Context:
    """What is known of the run besides its rows."""

    beta: float | None = None
    """None when the log does not say; TRL's default, 0.1, is then assumed."""
    loss_kind: str | None = None
    """TRL's name of the loss; None when the log does not say."""
    dropout_on_trained_adapter: bool = False
    """A trained adapter under dropout: training rows then differ from the reference at step 1."""
    steps_known: bool = True
    """False where steps are counted rows: the first row may then sum up many updates."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    ignored: frozenset[str] = frozenset()
    """Codes that the profile does not want to hear of."""

    @property
    def assumed_beta(self) -> float:
        """The beta to reckon with."""
        return 0.1 if self.beta is None else self.beta

    @classmethod
    def of_profile(cls, profile: Mapping[str, Any]) -> Context:
        """What an attempt's resolved profile says; keys that are missing are not known."""
        loss, adapter = _section(profile, "loss"), _section(profile, "adapter")
        beta, kind, dropout = loss.get("beta"), loss.get("kind"), adapter.get("dropout")
        return cls(
            beta=float(beta) if isinstance(beta, int | float) and 0 < beta < math.inf else None,
            loss_kind=kind if isinstance(kind, str) else None,
            dropout_on_trained_adapter=bool(adapter.get("path"))
            and isinstance(dropout, int | float)
            and dropout > 0,
            thresholds=Thresholds.of_table(_section(profile, "health")),
            ignored=frozenset(
                code for code, action in _section(profile, "alerts").items() if action == "ignore"
            ),
        )


def _section(profile: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = profile.get(name)
    return section if isinstance(section, Mapping) else {}


class Rule(Protocol):
    """One rule; `feed` takes rows in order, `alerts` says what they show so far.

    Memory does not grow with the rows, and what `alerts` says does not depend on how they were
    cut into chunks. Training and evaluation rows come in chunks of their own, in any order
    between the two.
    """

    KINDS: ClassVar[frozenset[Kind]]
    """Kinds of training that the rule can judge; `Diagnosis` keeps it silent about others."""
    NEEDS: ClassVar[tuple[str, ...]]
    """Metrics without which it is silent."""
    SEVERITIES: ClassVar[tuple[Severity, ...]]
    """Severities that its alerts can have."""

    def __init__(self, context: Context) -> None: ...

    def feed(self, rows: Rows) -> None:
        """Look at the next rows. A live step is a chunk of one row."""
        ...

    def alerts(self) -> list[HealthAlert]:
        """What all rows so far show; empty on health."""
        ...


@dataclass
class Sighting:
    """First and last step at which something was seen, and how often."""

    first_step: int = 0
    last_step: int = 0
    count: int = 0

    def add(self, steps: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Note the steps of a chunk, in order."""
        if len(steps) == 0:
            return
        if self.count == 0:
            self.first_step = int(steps[0])
        self.last_step = int(steps[-1])
        self.count += len(steps)
