"""One log of the corpus and its label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.health.generator.training import Recipe, Rows, log_of

NOTHING_LEARNED = ("loss_not_falling", "accuracy_low", "margin_small")
"""What a run that learns nothing shows besides its cause."""
UNMOVED = (*NOTHING_LEARNED, "grad_vanishing", "adapter_frozen")
"""What it shows when nothing in it changes at all."""


@dataclass(frozen=True)
class Case:
    """A log, how it is made, and what is to be found in it."""

    name: str
    make: Callable[[], Rows]
    why: str
    """The fault, or for a log that is written down its source."""
    expect: tuple[str, ...] = ()
    """Codes that have to be raised."""
    allow: tuple[str, ...] = ()
    """Codes that are true of the log besides."""
    held: bool = False
    """Kept apart: no threshold is set with it."""
    info: bool = False
    """The expected codes may be for information only."""
    loss_kind: str | None = None
    """What the reader is told of the loss; None where it has to find out."""
    beta: float | None = None
    """What the reader is told of beta; None where it has to assume."""
    written: bool = False
    exact: bool = False
    """Numbers are kept in full precision."""

    def label(self) -> dict[str, Any]:
        """As labels.json has it."""
        label = {
            "split": "held" if self.held else "open",
            "expect": list(self.expect),
            "allow": list(self.allow),
            "loss_kind": self.loss_kind,
            "beta": self.beta,
            "origin": "written" if self.written else "trained",
            "why": self.why,
        }
        return label | ({"info": True} if self.info else {})


def broken(
    name: str,
    code: str,
    why: str,
    made_by: Recipe | Callable[[], Rows],
    *,
    allow: tuple[str, ...] = (),
    held: bool = False,
    info: bool = False,
    told: bool = False,
    exact: bool = False,
) -> Case:
    """A log with a fault; `told` lets its reader know the recipe's loss and beta."""
    recipe = made_by if isinstance(made_by, Recipe) else None
    make = (lambda: log_of(made_by)) if isinstance(made_by, Recipe) else made_by
    return Case(
        name,
        make,
        why,
        expect=(code,),
        allow=allow,
        held=held,
        info=info,
        loss_kind=recipe.loss if told and recipe else None,
        beta=recipe.beta if told and recipe else None,
        exact=exact,
    )
