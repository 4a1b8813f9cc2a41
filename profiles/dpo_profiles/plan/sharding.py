"""How much of a parameter one rank keeps under each engine."""

from __future__ import annotations

from typing import assert_never

import msgspec

from dpo_profiles.schema import Backend


class Parameter(msgspec.Struct, frozen=True):
    """Equal parameters as they are stored."""

    rows: int
    """First dimension."""
    row_elements: int
    item_bytes: int
    count: int = 1

    @property
    def elements(self) -> int:
        """Elements of one of them."""
        return self.rows * self.row_elements

    @property
    def total_bytes(self) -> int:
        """All of them, unsharded."""
        return self.elements * self.item_bytes * self.count


class Sharding(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's rule for one run."""

    backend: Backend
    world_size: int
    persistence_elements: int = -1
    """ZeRO-3 keeps parameters up to this size whole, besides their shard."""
    reshards: bool = True
    """Whether FSDP gives a layer back after its forward pass; where not, all that were gathered stay whole until the
    backward pass has been through them, also those of a pass without gradients (torch's
    `_fsdp_param_group.py`, `reshard`; of FSDP1 `_runtime_utils.py`, `_post_forward_reshard`)."""

    @property
    def shards(self) -> bool:
        """Whether the engine shards at all."""
        return self.backend not in ("single", "ddp")

    def elements(self, parameter: Parameter) -> int:
        """Elements of one parameter's shard on a rank, padding included.

        Source: DeepSpeed pads a parameter to a multiple of the ranks
        (`partition_parameters.py`, `_partition_param`); FSDP1 does so with a unit's flat parameter
        (`_flat_param.py`), which differs from this by under a rank's padding; FSDP2 pads the first
        dimension (`_fsdp_param.py`, `_init_sharded_param`).
        """
        match self.backend:
            case "single" | "ddp":
                return parameter.elements
            case "deepspeed-zero3" | "fsdp":
                return -(-parameter.elements // self.world_size)
            case "fsdp2":
                return -(-parameter.rows // self.world_size) * parameter.row_elements
            case _:
                assert_never(self.backend)

    def rank_bytes(self, parameter: Parameter) -> int:
        """Bytes that all of these parameters keep on a rank between two uses."""
        return self.shard_bytes([parameter]) + self.persistent_bytes([parameter])

    def persistent(self, parameters: list[Parameter]) -> list[Parameter]:
        """Those that ZeRO-3 keeps whole."""
        if self.backend != "deepspeed-zero3":
            return []
        return [p for p in parameters if p.elements <= self.persistence_elements]

    def persistent_bytes(self, parameters: list[Parameter]) -> int:
        """Bytes of the whole copies that ZeRO-3 keeps of small parameters."""
        return sum(p.total_bytes for p in self.persistent(parameters))

    def shard_bytes(self, parameters: list[Parameter]) -> int:
        """Bytes of all shards on a rank."""
        return sum(self.elements(p) * p.item_bytes * p.count for p in parameters)

    def shard_elements(self, parameters: list[Parameter]) -> int:
        """Elements of all shards on a rank."""
        return sum(self.elements(parameter) * parameter.count for parameter in parameters)
