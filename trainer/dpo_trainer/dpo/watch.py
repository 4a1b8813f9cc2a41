"""What the trainer itself sees go wrong, told as alerts; the profile says which end the run."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dpo_profiles.schema import AlertAction, Alerts
from dpo_telemetry import events
from dpo_telemetry.events import Severity
from dpo_trainer.dpo.checks import MOVED_FRACTION
from dpo_trainer.dpo.results import Results
from dpo_trainer.emit.emitter import Emitter
from dpo_trainer.engine import Ranks
from dpo_trainer.selftest.finding import Finding

_VITAL = ("loss", "grad_norm")
"""What makes an update void when it is no number."""
_TOLD = ("logps/chosen", "logps/rejected")
_SAMPLED_STEPS = 100
"""Steps whose samples are named: a run that goes on with NaN would write them for ever."""


class RunFailed(Exception):  # noqa: N818 - bad news about the run, not an error of the program
    """The profile says that this alert stops the run."""


class Watch:
    """Holds what is measured against what must be, and remembers why the run has to stop."""

    def __init__(self, actions: Alerts, emitter: Emitter, ranks: Ranks) -> None:
        self._actions = actions
        self._emitter = emitter
        self._ranks = ranks
        self._sampled_steps = 0
        self.failure = ""
        """Why the run stops; empty while it goes on."""

    def raise_failure(self) -> None:
        """Raise `RunFailed` when an alert stops the run."""
        if self.failure:
            raise RunFailed(self.failure)

    def self_test(self, finding: Finding, where: str) -> None:
        """A check before the first update failed: the run stops, unless the profile says otherwise.

        Args:
            where: the rank it failed on, for the message.
        """
        self._alert(finding.code, f"Before the first update: {finding.text}{where}.", advice=finding.advice)
        # A loss that is no number may pass; log-probs that are none before anything was trained do not.
        by_profile = {name: getattr(self._actions, name) for name in ("reference_mismatch", "adapter_frozen")}
        self._act(finding.code, by_profile.get(finding.code, "stop"))

    def first_update(self, moved: float | None) -> None:
        """`moved` is the share of weights with a gradient that the update changed; None: no gradient."""
        if moved is not None and moved >= MOVED_FRACTION:
            return
        what = "no weight has a gradient" if moved is None else f"only {moved:.1%} of its weights moved"
        self._alert(
            "adapter_frozen",
            f"The adapter barely changes: at the first update {what}.",
            metric="grad_norm",
            advice="Keep float32 masters (adapter.master_dtype), and check that completions reach the loss.",
        )
        self._act("adapter_frozen", self._actions.adapter_frozen)

    def step(self, step: int, metrics: Mapping[str, float], results: Results) -> None:
        """A step's loss and gradient must be numbers, and log-probs that are none are told."""
        bad = [name for name in (*_VITAL, *_TOLD) if not math.isfinite(metrics.get(name, 0.0))]
        if not bad:
            return
        results = results.over(self._ranks)
        ids = self.samples(step, bad[0], results)
        vital = bad[0] in _VITAL
        self._alert(
            "nonfinite",
            f"{bad[0]} is {metrics[bad[0]]} at step {step}, in {sum(map(len, ids.values()))} of {results.pairs} pairs.",
            metric=bad[0],
            advice="Look at the pairs named in the sample event; lower the learning rate.",
            severity="critical" if vital else "warning",
        )
        if vital:
            self._act("nonfinite", self._actions.nonfinite)

    def samples(self, step: int, metric: str, results: Results) -> dict[int, list[int]]:
        """Name the pairs behind a value that is not finite, rank by rank; rank 0 writes for all.

        A gradient alone that is not finite names no pair: then it may be any of the step.
        """
        ids = results.behind_nonfinite()
        self._sampled_steps += 1
        if self._ranks.rank == 0 and self._sampled_steps <= _SAMPLED_STEPS:
            for rank, pairs in ids.items():
                self._emitter.put(
                    events.Sample(**events.stamp(), step=step, metric=metric, sample_ids=pairs, rank=rank)
                )
        return ids

    def _alert(
        self,
        code: str,
        message: str,
        *,
        metric: str | None = None,
        advice: str,
        severity: Severity = "critical",
    ) -> None:
        """One rank says what all ranks see, and act on."""
        if self._ranks.rank == 0:
            self._emitter.alert(code, severity, message, metric=metric, advice=advice)

    def _act(self, code: str, action: AlertAction) -> None:
        if action == "stop" and not self.failure:
            self.failure = f"{code} at step {self._emitter.step or 0}"
