"""Why an attempt ran out of memory: what was there at the end, beside what was planned, and what to change."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dpo_telemetry import components
from dpo_telemetry.budget import PLAN_PHASES, measured_components
from dpo_telemetry.reader.attempt import AttemptView, ProcessView
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.text import printable

CODE = "oom"
HOST_RAN_OUT = "host ran out of memory"
"""In the reason of an exit, where the kernel killed a process for want of memory."""

OF_HOST_ADVICE = (
    "The host's memory was full, not a card's: start fewer ranks on it, or take offloading to the CPU back;"
    " `dpo-daemon plan RUN` says what the host needs."
)

_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_AMOUNT = r"(\d+(?:\.\d+)?) (bytes|KiB|MiB|GiB|TiB)"
_REQUESTED = re.compile(rf"Tried to allocate {_AMOUNT}")
_ALLOCATED = re.compile(rf"{_AMOUNT} is allocated by PyTorch")
_UNALLOCATED = re.compile(rf"{_AMOUNT} is reserved by PyTorch but unallocated")
_FREE = re.compile(rf"of which {_AMOUNT} is free")
_RANK = re.compile(r"\brank (\d{1,9})\b")


@dataclass(frozen=True, slots=True)
class Ledger:
    """One component at the end, in bytes."""

    name: str
    planned_bytes: int | None
    """None without a plan for it."""
    measured_bytes: int

    @property
    def over_bytes(self) -> int:
        """How far it is above its plan; 0 within the plan, or without one."""
        return 0 if self.planned_bytes is None else max(0, self.measured_bytes - self.planned_bytes)


@dataclass(frozen=True, slots=True)
class Autopsy:
    """The end of one attempt. What torch did not tell is None."""

    attempt: int
    rank: int | None
    """The first rank that ran out; None where it is not known."""
    ranks: int
    """How many ran out."""
    of_host: bool
    """It was the host's memory, not a card's."""
    phase: str
    step: int | None
    """The last step that this rank measured."""
    said: str
    requested_bytes: int | None
    allocated_bytes: int | None
    unallocated_bytes: int | None
    """Reserved by the allocator, in pieces too small for the request."""
    free_bytes: int | None
    planned_peak_bytes: int | None
    """Of the phase it died in."""
    others_bytes: int | None
    """What other processes held on the card."""
    ledger: tuple[Ledger, ...]
    """Components as last measured, furthest above the plan first; activations as torch told them at the end."""
    advice: tuple[str, ...]

    @property
    def needed_bytes(self) -> int | None:
        """What torch held and the request that failed."""
        if self.allocated_bytes is None or self.requested_bytes is None:
            return None
        return self.allocated_bytes + self.requested_bytes


def autopsy(model: RunModel, others_bytes: Callable[[int], int | None]) -> Autopsy | None:
    """Of the newest attempt; None where it did not run out of memory.

    Args:
        model: what is known of the run.
        others_bytes: of a rank, what processes of others use on its card; None where it is not known.
    """
    attempt = model.attempt
    if attempt is None:
        return None
    ended = [
        process
        for process in model.processes.values()
        if process.attempt == attempt.number and process.exit is not None and process.exit.reason == CODE
    ]
    said = [alert for alert in attempt.alerts if alert.code == CODE]
    killed = next((end.reason for end in attempt.host_exits if HOST_RAN_OUT in end.reason), "")
    if not (ended or said or killed):
        return None
    first = min(ended, key=_ended_s, default=None)
    rank = first.rank if first is not None else _named_rank(killed)
    at_s = _ended_s(first) if first is not None else 0.0
    told = min(said, key=lambda alert: abs(alert.t - at_s), default=None)
    text = printable(told.message if told is not None else killed)
    of_host = not ended and not said
    return _examine(model, attempt, rank, text, max(1, len(ended)), of_host, others_bytes(rank or 0))


def _examine(
    model: RunModel,
    attempt: AttemptView,
    rank: int | None,
    said: str,
    ranks: int,
    of_host: bool,
    others_bytes: int | None,
) -> Autopsy:
    shown = rank if rank is not None else 0
    memory = model.memory.get(shown) if shown in model.memory_history.ranks else None
    phase = model.phase.name if model.phase is not None and model.phase.state != "end" else ""
    if not phase and memory is not None:
        phase = memory.phase
    allocated, requested = _amount(_ALLOCATED, said), _amount(_REQUESTED, said)
    unallocated = _amount(_UNALLOCATED, said)
    ledger = _ledger(model, attempt, shown, (allocated, requested, unallocated))
    planned = attempt.budget.planned_phases(shown)
    names = PLAN_PHASES.get(phase, ())
    return Autopsy(
        attempt=attempt.number,
        rank=rank,
        ranks=ranks,
        of_host=of_host,
        phase=phase,
        step=memory.step if memory is not None else None,
        said=said,
        requested_bytes=requested,
        allocated_bytes=allocated,
        unallocated_bytes=unallocated,
        free_bytes=_amount(_FREE, said),
        planned_peak_bytes=max(
            (sum(planned[name].values()) for name in names if name in planned), default=None
        ),
        others_bytes=others_bytes,
        ledger=ledger,
        advice=_advice(attempt.profile, ledger, phase, of_host, others_bytes, unallocated),
    )


def _ledger(
    model: RunModel, attempt: AttemptView, rank: int, told: tuple[int | None, int | None, int | None]
) -> tuple[Ledger, ...]:
    """`told` is what torch says it held at the end, what it asked for, and what lay in pieces."""
    allocated, requested, unallocated = told
    if rank not in model.memory_history.ranks:
        return ()
    memory = model.memory[rank]
    found = measured_components(memory)
    if allocated is not None:
        standing = sum(memory.components.values())
        at_end = allocated + (requested or 0) - standing
        found[components.ACTIVATIONS] = max(at_end, found.get(components.ACTIVATIONS, 0))
    if unallocated is not None:
        found[components.CACHE_FRAGMENTATION] = unallocated
    held = attempt.budget.rank(rank)
    planned = {name: one.planned_bytes for name, one in held.components.items()} if held is not None else {}
    phases = attempt.budget.planned_phases(rank)
    if components.ACTIVATIONS in found and phases:
        # A phase that was never measured to its end has no peak of its own yet.
        planned[components.ACTIVATIONS] = max(
            parts.get(components.ACTIVATIONS, 0) for parts in phases.values()
        )
    rows = [Ledger(name, planned.get(name), count) for name, count in found.items()]
    return tuple(sorted(rows, key=lambda row: (-row.over_bytes, -row.measured_bytes)))


def _advice(
    profile: Mapping[str, Any],
    ledger: tuple[Ledger, ...],
    phase: str,
    of_host: bool,
    others_bytes: int | None,
    unallocated_bytes: int | None,
) -> tuple[str, ...]:
    """What to change, the most effective first."""
    if of_host:
        return (OF_HOST_ADVICE,)
    said = []
    over = [row for row in ledger if row.over_bytes]
    if others_bytes is not None and others_bytes >= max(1 << 30, over[0].over_bytes if over else 0):
        said.append("Other processes hold much of the card: end them, or choose another card.")
    if over:
        said += _component_advice(over[0].name, profile, phase)
    elif any(row.planned_bytes is not None for row in ledger):
        said += [
            "Every component is within its plan, so the plan itself did not fit.",
            *_smaller(profile, phase),
        ]
    else:
        said += _smaller(profile, phase)
    largest = max((row.measured_bytes for row in ledger), default=0)
    if unallocated_bytes and unallocated_bytes >= max(1 << 30, largest // 20):
        said.append("Much is reserved in pieces: set PYTORCH_ALLOC_CONF=expandable_segments:True.")
    said.append("`dpo-daemon plan --profile NAME --fit` searches for settings that fit.")
    return tuple(dict.fromkeys(said))


def _component_advice(name: str, profile: Mapping[str, Any], phase: str) -> list[str]:
    if name in (components.POLICY_WEIGHTS, components.REFERENCE_WEIGHTS):
        return [
            "More weights than planned: see that the engine's file shards the base, and that it is loaded in 4 bits."
        ]
    if name in (components.ADAPTERS, components.GRADIENTS):
        return ["More trainable weights than planned: see adapter.r and adapter.target_modules."]
    if name == components.OPTIMIZER_STATES:
        return ['Set optimizer.name = "paged_adamw_8bit": its states take a quarter.']
    if name == components.CACHE_FRAGMENTATION:
        return ["The allocator holds more than is used: set PYTORCH_ALLOC_CONF=expandable_segments:True."]
    if name == components.CONTEXT_COMMUNICATION:
        return [
            "Context and communication take more than planned: see NCCL's buffers and other libraries on the card."
        ]
    return _smaller(profile, phase)


def _smaller(profile: Mapping[str, Any], phase: str) -> list[str]:
    """How activations get smaller, by what the profile still leaves."""
    train, data = _section(profile, "train"), _section(profile, "data")
    said = []
    if train.get("gradient_checkpointing") is False:
        said.append(
            "Set train.gradient_checkpointing = true: activations are computed again instead of kept."
        )
    if phase == "eval":
        pairs = _section(profile, "eval").get("micro_batch_pairs")
        if isinstance(pairs, int) and pairs > 1:
            said.append(f"Lower eval.micro_batch_pairs from {pairs} to {pairs // 2}.")
    pairs, times = train.get("micro_batch_pairs"), train.get("gradient_accumulation_steps")
    if isinstance(pairs, int) and pairs > 1 and isinstance(times, int):
        fewer = pairs // 2 if pairs % 2 == 0 else 1
        said.append(
            f"Lower train.micro_batch_pairs from {pairs} to {fewer} and raise"
            f" train.gradient_accumulation_steps from {times} to {times * pairs // fewer}: the updates stay the same."
        )
    tokens = data.get("max_length_tokens")
    if isinstance(tokens, int):
        said.append(f"Lower data.max_length_tokens below {tokens}.")
    return said or ["Use smaller batches or shorter pairs."]


def _section(profile: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = profile.get(name)
    return section if isinstance(section, dict) else {}


def _ended_s(process: ProcessView) -> float:
    return process.exit.t if process.exit is not None else 0.0


def _named_rank(reason: str) -> int | None:
    found = _RANK.search(reason)
    return int(found[1]) if found else None


def _amount(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None
