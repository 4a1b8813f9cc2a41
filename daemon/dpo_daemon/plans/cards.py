"""`--gpu NAME`: the card that a plan is made for."""

from __future__ import annotations

import msgspec

from dpo_daemon.errors import DaemonError
from dpo_profiles.plan.gpus import HERE, find_card
from dpo_profiles.schema import Hardware, Profile
from dpo_telemetry.figures import size

NONE_HERE = "--gpu here: NVML shows no GPU on this machine; name the card, for example --gpu 'H100 80GB'"


def with_card(profile: Profile, name: str) -> tuple[Profile, list[str]]:
    """The profile on another card, and what there is to say about the card's figure.

    Raises:
        DaemonError: `here`, and NVML shows no GPU with its memory.
        ProfileError: no card of this name is known.
    """
    if name == HERE:
        hardware, notes = _cards_here()
    else:
        card = find_card(name)
        hardware, notes = card.hardware, []
        if card.nominal:
            label = size(card.capacity_bytes)
            notes = [f"capacity of {card.reported}: nominal, {label} by its label; NVML may report less"]
    return msgspec.structs.replace(profile, hardware=hardware), notes


def _cards_here() -> tuple[Hardware, list[str]]:
    """The smallest card of this machine."""
    # NVML and the event types are slow to import, and only this needs them.
    try:
        from dpo_daemon.nvml import Nvml
    except ImportError:
        raise DaemonError(
            "--gpu here: nvidia-ml-py is not installed, so NVML cannot be asked; "
            "name the card, for example --gpu 'H100 80GB'"
        ) from None
    nvml = Nvml()
    try:
        found = [gpu for gpu in nvml.sample("here") if gpu.memory_total_bytes]
    finally:
        nvml.close()
    if not found:
        raise DaemonError(NONE_HERE)
    smallest = min(found, key=lambda gpu: gpu.memory_total_bytes or 0)
    capacities = {gpu.memory_total_bytes for gpu in found}
    notes = [f"{len(found)} GPU{'s' if len(found) > 1 else ''} here, read from NVML"]
    if len(capacities) > 1:
        notes = [f"{notes[0]}; they differ, and the plan is for the smallest, GPU {smallest.index}"]
    return Hardware(gpu=smallest.name, capacity_bytes=smallest.memory_total_bytes or 0), notes
