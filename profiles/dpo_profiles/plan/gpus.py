"""The usual cards, by the memory that NVML reports for them."""

from __future__ import annotations

import re
from difflib import get_close_matches

import msgspec

from dpo_profiles.errors import ProfileError
from dpo_profiles.schema import Hardware

MIB = 1 << 20
GIB = 1 << 30
HERE = "here"
"""The name that means the cards of this machine."""
NEAR_NAMES = 3


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of GPU."""

    name: str
    """Short, as people write it."""
    reported: str
    """As NVML names it."""
    capacity_bytes: int
    nominal: bool = False
    """Whether the capacity is the label's figure in GiB, since what NVML reports is not known here."""

    @property
    def hardware(self) -> Hardware:
        """The profile's table for this card."""
        return Hardware(gpu=self.reported, capacity_bytes=self.capacity_bytes)


CARDS = (
    # nvidia-smi's totals, as modal-labs/modal-client#2797 lists them.
    Card(name="H100 80GB", reported="NVIDIA H100 80GB HBM3", capacity_bytes=81_559 * MIB),
    Card(name="A100 80GB", reported="NVIDIA A100-SXM4-80GB", capacity_bytes=81_920 * MIB),
    Card(name="A100 40GB", reported="NVIDIA A100-SXM4-40GB", capacity_bytes=40_960 * MIB),
    Card(name="L40S", reported="NVIDIA L40S", capacity_bytes=46_068 * MIB),
    Card(name="A10", reported="NVIDIA A10", capacity_bytes=23_028 * MIB),
    Card(name="L4", reported="NVIDIA L4", capacity_bytes=23_034 * MIB),
    Card(name="T4", reported="Tesla T4", capacity_bytes=15_360 * MIB),
    # nvidia-smi's tables in RLinf/RLinf#255, sgl-project/sglang#3196, NVIDIA/TensorRT-LLM#10278,
    # noonghunna/club-3090#617 and #390, and, with ECC off, in the notebook Discover_Sionna of NVlabs/sionna.
    Card(name="RTX 4090", reported="NVIDIA GeForce RTX 4090", capacity_bytes=24_564 * MIB),
    Card(name="H200", reported="NVIDIA H200", capacity_bytes=143_771 * MIB),
    Card(name="B200", reported="NVIDIA B200", capacity_bytes=183_359 * MIB),
    Card(name="RTX 5090", reported="NVIDIA GeForce RTX 5090", capacity_bytes=32_607 * MIB),
    Card(name="RTX 3090", reported="NVIDIA GeForce RTX 3090", capacity_bytes=24_576 * MIB),
    Card(name="RTX A6000", reported="NVIDIA RTX A6000", capacity_bytes=49_140 * MIB),
    # 32,510 or 32,768 MiB, by the driver.
    Card(name="V100 32GB", reported="Tesla V100-SXM2-32GB", capacity_bytes=32 * GIB, nominal=True),
)


def find_card(name: str) -> Card:
    """A card by its short or reported name; case, spaces and hyphens do not matter.

    A name without a size means the larger card of that name.

    Raises:
        ProfileError: none of that name is known.
    """
    wanted = _plain(name)
    for card in CARDS:
        if wanted in (_plain(card.name), _plain(card.reported)):
            return card
    for card in CARDS:
        if wanted and wanted == _plain(card.name.partition(" ")[0]):
            return card
    names = {_plain(card.name): card.name for card in CARDS}
    near = [names[match] for match in get_close_matches(wanted, list(names), n=NEAR_NAMES, cutoff=0.4)]
    guess = f"did you mean {' or '.join(near)}" if near else f"known are {', '.join(names.values())}"
    raise ProfileError(
        f"--gpu: no card {name!r} is known; {guess}, or set hardware.gpu and hardware.capacity_bytes"
    )


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]|nvidia|geforce|tesla", "", name.lower())
