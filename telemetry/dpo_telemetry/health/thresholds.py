"""Where the rules draw their lines; the same numbers are the table `[health]` of a profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta


def _meta(unit: str, description: str, **limits: Any) -> Meta:
    return Meta(description=description, extra={"unit": unit}, **limits)


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """Thresholds of the rules; `docs/diagnosis.md` says which rule reads which."""

    min_steps: Annotated[
        int, _meta("optimizer steps", "Steps of a run before a rule judges whether it learns", ge=1)
    ] = 50
    window_rows: Annotated[
        int, _meta("rows", "Rows behind the warm-up over whose mean a rule judges", ge=2)
    ] = 25
    empty_critical_share: Annotated[
        float, _meta("fraction", "empty_completions is critical from this share of empty rows on", gt=0)
    ] = 0.5
    frozen_rows: Annotated[
        int, _meta("rows", "adapter_frozen after so many rows of rewards that are exactly 0", ge=1)
    ] = 5
    reference_warning_reward: Annotated[
        float, _meta("reward", "reference_mismatch from this reward before the first update on", gt=0)
    ] = 0.01
    reference_critical_reward: Annotated[
        float, _meta("reward", "The same, critical: the run is pulled to what it never was", gt=0)
    ] = 0.1
    reference_offset_reward: Annotated[
        float, _meta("reward", "The same where the first row already sums up some updates", gt=0)
    ] = 0.5
    bf16_min_grid: Annotated[
        float, _meta("nats", "bf16_rounding where log-probs lie on a grid at least this coarse", gt=0)
    ] = 0.125
    ln2_tolerance: Annotated[
        float, _meta("loss", "loss_not_falling within this of ln 2: half a step of bf16's grid at 0.69", gt=0)
    ] = 0.0025
    corrupt_loss_factor: Annotated[
        float,
        _meta("factor", "base_corrupted when the loss starts at so many times its expected start", gt=1),
    ] = 5.0
    guessing_loss: Annotated[
        float,
        _meta(
            "nats per token",
            "base_corrupted above this first loss, worse than a guess from 262,144 tokens",
            gt=0,
        ),
    ] = 12.5
    corrupt_logps_ratio: Annotated[
        float, _meta("factor", "base_corrupted when first log-probs are so many times the reference's", gt=1)
    ] = 3.0
    swapped_accuracy: Annotated[
        float, _meta("fraction", "labels_swapped below this accuracy", gt=0, lt=0.5)
    ] = 0.4
    swapped_margin: Annotated[float, _meta("reward", "The same: and a margin this far below 0", gt=0)] = 0.1
    low_accuracy: Annotated[
        float, _meta("fraction", "accuracy_low below this accuracy, its standard error included", gt=0, lt=1)
    ] = 0.55
    accuracy_rows: Annotated[
        int, _meta("rows", "Rows behind the warm-up over which accuracy_low judges", ge=2)
    ] = 40
    moved_reward: Annotated[
        float, _meta("reward", "Rewards of this size have left 0: the policy has been moved", gt=0)
    ] = 0.02
    small_margin: Annotated[float, _meta("reward", "margin_small below this margin", gt=0)] = 0.05
    small_margin_accuracy: Annotated[
        float, _meta("fraction", "The same: while at least this share of the pairs is right", gt=0.5)
    ] = 0.7
    spike_deviations: Annotated[
        float, _meta("standard deviations", "loss_spike above the level by so many deviations", gt=0)
    ] = 4.0
    spike_factor: Annotated[
        float, _meta("factor", "The same: and by this factor above the level and the start", gt=1)
    ] = 2.0
    spike_rows: Annotated[int, _meta("rows", "The same: in so many of 16 rows", ge=1)] = 4
    vanishing_grad_norm: Annotated[float, _meta("norm", "grad_vanishing up to this gradient norm", gt=0)] = (
        1e-05
    )
    vanishing_rows: Annotated[int, _meta("rows", "The same: in so many rows one after the other", ge=2)] = 10
    exploding_grad_norm: Annotated[float, _meta("norm", "grad_exploding above this gradient norm", gt=0)] = (
        100.0
    )
    exploding_growth: Annotated[
        float, _meta("factor", "The same: and so many times that of the start", gt=1)
    ] = 10.0
    exploding_share: Annotated[float, _meta("fraction", "The same: in this share of 10 rows", gt=0)] = 0.3
    lr_zero_rows: Annotated[
        int, _meta("rows", "lr_zero after so many rows one after the other with a rate of 0", ge=2)
    ] = 5
    ended_rate_share: Annotated[
        float,
        _meta(
            "fraction", "stalled: a learning rate up to this share of its peak is next to nothing", gt=0, lt=1
        ),
    ] = 0.001
    ended_rows_share: Annotated[
        float, _meta("fraction", "The same: for this share of the run's rows", gt=0, lt=1)
    ] = 0.25
    ended_loss_share: Annotated[
        float, _meta("fraction", "The same: while the loss is above this share of its start", gt=0, lt=1)
    ] = 0.5
    stalled_growth: Annotated[
        float,
        _meta(
            "fraction",
            "stalled: margins grow by less than this share of themselves over a quarter of the run",
            gt=0,
            lt=1,
        ),
    ] = 0.15
    stalled_loss_share: Annotated[
        float,
        _meta(
            "fraction",
            "The same on pairs not seen before: while the loss is above this share of its start",
            gt=0,
            lt=1,
        ),
    ] = 0.85
    stalled_accuracy: Annotated[
        float, _meta("fraction", "The same: and less than this share of the pairs right", gt=0.5)
    ] = 0.8
    displaced_reward: Annotated[
        float,
        _meta(
            "reward", "likelihood_displacement: chosen rewards this far below 0, margins this far above", gt=0
        ),
    ] = 0.1
    collapse_factor: Annotated[
        float,
        _meta(
            "factor",
            "The same, a warning: log-probs of chosen answers are so many times those of the start",
            gt=1,
        ),
    ] = 2.0
    collapse_nats: Annotated[float, _meta("nats", "The same: and lower by at least this much", gt=0)] = 30.0
    over_margin: Annotated[float, _meta("reward", "over_optimisation from this margin on", gt=0)] = 10.0
    over_accuracy: Annotated[
        float, _meta("fraction", "The same: with at least this share of the pairs right", gt=0.5)
    ] = 0.98
    over_loss: Annotated[float, _meta("loss", "The same: and a loss up to this", gt=0)] = 0.05
    overfit_rise: Annotated[
        float, _meta("fraction", "overfitting: eval_loss above its best by this share of it", gt=0)
    ] = 0.1
    overfit_least_rise: Annotated[float, _meta("loss", "The same: and by at least this much", gt=0)] = 0.05
    length_ratio: Annotated[
        float, _meta("factor", "length_bias: one side is so many times as long as the other", gt=1)
    ] = 1.5
    length_logps_ratio: Annotated[
        float,
        _meta("factor", "The same where no lengths are logged: log-probs that differ by this factor", gt=1),
    ] = 2.2
    length_accuracy: Annotated[
        float, _meta("fraction", "The same: with at least this share of the pairs right", gt=0.5)
    ] = 0.75

    @classmethod
    def of_table(cls, table: Mapping[str, Any]) -> Thresholds:
        """Thresholds as a profile's table has them; one that is missing or out of range keeps its default."""
        changed: dict[str, Any] = {}
        for field in msgspec.structs.fields(cls):
            if field.name in table:
                try:
                    changed[field.name] = msgspec.convert(table[field.name], field.type)
                except msgspec.ValidationError:
                    continue
        return cls(**changed)
