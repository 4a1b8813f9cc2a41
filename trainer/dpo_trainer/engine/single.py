"""One process on one device."""

from __future__ import annotations

from dpo_trainer.engine.base import Engine


class SingleEngine(Engine):
    """The first GPU where there is one, else the CPU."""
