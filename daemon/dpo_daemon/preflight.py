"""What is refused before anything is made: a run that can only fail, or learn nothing.

Each check is a function of a Candidate that gives one text, with reason and mend, for each thing it finds. All of
them are run and reported together. Nothing is changed, and only the data of a local file is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from dpo_daemon.nvml import Nvml
from dpo_profiles.data import SHIPPED, shipped_pairs_path
from dpo_profiles.errors import PlanUnavailableError
from dpo_profiles.pair_lengths import (
    BYTES_PER_TOKEN,
    PairLength,
    local_rows,
    sample_lengths,
    training_pairs_up_to,
)
from dpo_profiles.plan.find import find_architecture
from dpo_profiles.plan.report import Plan
from dpo_profiles.schema import Profile

SMALL_LEARNING_RATE = 1e-5
"""At 5e-6 a bfloat16 adapter without float32 masters changed 2.4 % of its weights in 30 steps, a float32 one
99.997 %."""
LARGEST_LOST_SHARE = 0.5
"""Share of pairs without an answer above which a run is refused."""


class Finding(msgspec.Struct, frozen=True):
    """One reason not to start."""

    name: str
    """Check that found it, as `--force` takes it."""
    text: str


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be started."""

    profile: Profile
    plan: Plan | None = None
    """None where the model's architecture is not known."""
    gpus: int | None = None
    """NVIDIA GPUs of this machine; None asks nothing of the machine, as a dry run does."""


Check = Callable[[Candidate], Iterator[str]]


def preflight(candidate: Candidate) -> list[Finding]:
    """Everything that speaks against starting, in the order of CHECKS."""
    return [Finding(name, text) for name, check in CHECKS.items() for text in check(candidate)]


def gpu_count() -> int:
    """NVIDIA GPUs of this machine that answer."""
    nvml = Nvml()
    try:
        return sum(not gpu.error for gpu in nvml.sample(""))
    finally:
        nvml.close()


def _dtypes(candidate: Candidate) -> Iterator[str]:
    """Source: trl#878 (float16 logits overflow, rewards NaN from step 2); FSDP2's `MixedPrecisionPolicy` as accelerate
    makes it (`set_mixed_precision`, output_dtype); the others are measured."""
    profile = candidate.profile
    model, backend = profile.model, profile.engine.backend
    weights = "bfloat16" if model.compute_dtype == "auto" else model.compute_dtype
    if weights == "float16":
        yield (
            "model.compute_dtype is float16, in which the logits overflow at 65504 and rewards turn NaN; "
            "set it to bfloat16"
        )
    if model.autocast_dtype == "float16":
        yield (
            f"model.autocast_dtype is float16 around {weights} weights: values beyond 65504 overflow and rewards turn "
            "NaN; set it to none, and mixed_precision to 'no' in the accelerate file"
        )
    if model.autocast_dtype == "bfloat16" and backend == "fsdp2":
        yield (
            "model.autocast_dtype is bfloat16 under fsdp2, whose policy casts the outputs too and so rounds log-probs, "
            "in steps of 4 at -536; set it to none, and mixed_precision to 'no' in the accelerate file"
        )
    small = profile.optimizer.learning_rate <= SMALL_LEARNING_RATE
    if profile.adapter.master_dtype == "bfloat16" and small:
        yield (
            f"adapter.master_dtype is bfloat16 and optimizer.learning_rate is {profile.optimizer.learning_rate:g}: "
            "nearly all updates are rounded away; set master_dtype to float32"
        )


def _truncation(candidate: Candidate) -> Iterator[str]:
    data = candidate.profile.data
    source, lengths = _measured(candidate.profile)
    if not lengths:
        return
    limit = data.max_length_tokens
    how = f"counted as ChatML with a byte-level tokenizer, {BYTES_PER_TOKEN:g} bytes a token"
    if data.over_long == "drop":
        shortest = min(length.whole_tokens for length in lengths)
        if shortest > limit:
            yield (
                f"data.max_length_tokens is {limit}, and none of {source} is that short: the shortest needs at least "
                f"{shortest:.0f} tokens ({how}), so all are dropped; raise it, to 512 for example"
            )
        return
    lost = sum(length.prompt_tokens >= limit for length in lengths) / len(lengths)
    if lost > LARGEST_LOST_SHARE:
        yield (
            f"data.max_length_tokens is {limit} and data.over_long is truncate: at least {lost:.0%} of {source} lose "
            f"the whole of an answer behind their prompt ({how}); without its tokens the loss stays at ln 2 and the gradient at 0; "
            "raise it, to 512 for example, and set over_long to drop"
        )


def _measured(profile: Profile) -> tuple[str, list[PairLength]]:
    """Pairs that lengths are taken from, in words and figures; the shipped ones stand in for data that is elsewhere."""
    path = local_rows(profile.data)
    if path is None or profile.data.name == SHIPPED:
        return "the shipped pairs", sample_lengths(shipped_pairs_path())
    try:
        lengths = sample_lengths(path)
    except OSError:
        return "", []
    return f"the first {len(lengths)} pairs of {path.name}", lengths


def _world_size(candidate: Candidate) -> Iterator[str]:
    profile = candidate.profile
    ranks = profile.engine.world_size
    said = f"engine.nodes x gpus_per_node is {ranks} ranks"
    pairs = _most_pairs(profile, ranks)
    if pairs is not None and pairs < ranks:
        yield (
            f"{said}, but data.name {profile.data.name} leaves at most {pairs} pairs to train on, less than one a "
            "rank; take fewer ranks or more pairs"
        )
    layers = _layers(profile)
    if layers is not None and layers < ranks and profile.engine.backend not in ("single", "ddp"):
        yield (
            f"{said}, but {profile.model.base} has {layers} decoder layers, so {profile.engine.backend} would leave a "
            f"rank less than one of them; take at most {layers} ranks"
        )


def _most_pairs(profile: Profile, ranks: int) -> int | None:
    """Training pairs at most, counted up to one a rank; None where the data is elsewhere, or for one rank: a run
    without any pair is refused in other words."""
    path = local_rows(profile.data) if ranks > 1 else None
    try:
        return None if path is None else training_pairs_up_to(path, profile.data, ranks)
    except OSError:
        return None


def _layers(profile: Profile) -> int | None:
    try:
        return find_architecture(profile.model.base, profile.name).layers
    except PlanUnavailableError:
        return None


def _plan(candidate: Candidate) -> Iterator[str]:
    plan = candidate.plan
    if plan is not None and not plan.fits:
        gpu = plan.gpu.name or "a GPU"
        yield f"the plan does not fit {gpu} of {plan.gpu.capacity_bytes / (1 << 30):.1f} GiB: {plan.advice[0]}"


def _backend(candidate: Candidate) -> Iterator[str]:
    engine = candidate.profile.engine
    if candidate.gpus is None:
        return
    if engine.backend == "fsdp":
        yield (
            "engine.backend is fsdp: FSDP1 flattens weights of one type only, which float32 masters beside a bfloat16 "
            "base are not, so it is planned and not run; take fsdp2, which shards the same way"
        )
    if engine.nodes > 1:
        yield (
            f"engine.nodes is {engine.nodes}, and only this machine's ranks are launched; set engine.nodes to 1, or "
            "plan it (`dpo-daemon plan`)"
        )


def _gpus(candidate: Candidate) -> Iterator[str]:
    """A profile that names a GPU is meant for one: on a CPU a large model would only fill the host's memory."""
    profile, here = candidate.profile, candidate.gpus
    wanted = profile.engine.gpus_per_node
    if here is not None and profile.hardware.gpu and here < wanted:
        yield (
            f"engine.gpus_per_node is {wanted}, of {profile.hardware.gpu}, and {here or 'no'} NVIDIA GPUs are here; "
            "start it where they are, or try it on a small model: `dpo-daemon rehearse`"
        )


CHECKS: dict[str, Check] = {
    "dtypes": _dtypes,
    "truncation": _truncation,
    "world_size": _world_size,
    "plan": _plan,
    "backend": _backend,
    "gpus": _gpus,
}
"""By the name that `--force` takes."""
