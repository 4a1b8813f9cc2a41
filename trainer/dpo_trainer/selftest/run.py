"""All checks, told as progress, and as alerts where one fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dpo_trainer.dpo.trainer import PairTrainer
from dpo_trainer.dpo.watch import Watch
from dpo_trainer.emit import lines
from dpo_trainer.emit.emitter import Emitter
from dpo_trainer.engine import Engine
from dpo_trainer.model.fill import Loaded
from dpo_trainer.selftest import base, policy
from dpo_trainer.selftest.finding import Finding


class SelfTest:
    """What was loaded, held against what the engine made of it."""

    def __init__(
        self, engine: Engine, loaded: Loaded, started_from: dict[str, int], planned_bytes: int | None
    ) -> None:
        self._engine = engine
        self._loaded = loaded
        self._started_from = started_from
        self._planned_bytes = planned_bytes

    def run(self, trainer: PairTrainer, emitter: Emitter, watch: Watch, *, resumed: bool) -> None:
        """Make all checks on all ranks and tell what they found.

        Args:
            resumed: the policy has moved away from its reference already.

        Raises:
            RunFailed: one does not hold, and the profile does not say to go on.
        """
        ranks = self._engine.ranks
        for check in self._checks(trainer, resumed):
            found = ranks.gather(check())
            failed = next((rank for rank, finding in enumerate(found) if not finding.ok), None)
            told = found[failed or 0]
            where = f" (rank {failed})" if failed is not None and ranks.world_size > 1 else ""
            message = f"self-test: {told.check}: {told.text}{where}"
            emitter.progress(0, message=message)
            if ranks.rank == 0:
                lines.write_message(message)
            if failed is not None:
                watch.self_test(told, where)
            watch.raise_failure()

    def _checks(self, trainer: PairTrainer, resumed: bool) -> Iterator[Callable[[], Finding]]:
        model, engine, loaded = trainer.policy, self._engine, self._loaded
        yield lambda: policy.trainable(model, engine)
        yield lambda: base.sharding(model, engine, self._planned_bytes)
        yield lambda: base.codes(model, engine, loaded)
        yield lambda: base.outputs(model, engine, loaded)
        yield lambda: policy.reference(model, engine, self._started_from)
        if not resumed:
            yield lambda: policy.first_batch(trainer, engine.profile.loss)
