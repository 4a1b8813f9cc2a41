"""Run directories of 1 to 1,024 ranks on cards, written by the real writer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpo_telemetry import events
from dpo_telemetry.rundir.create import create_attempt, create_run
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.writer import EventWriter

START_S = 1_790_000_000.0
STEP_S = 6.8
GIB = 1 << 30
CAPACITY = 80 * GIB
STANDING = {
    "policy_weights": 18 * GIB, "adapters": GIB, "gradients": 2 * GIB, "optimizer_states": 4 * GIB,
}  # fmt: skip
WEIGHTS_ONLY = {name: STANDING[name] for name in ("policy_weights", "adapters")}
PHASES = {
    "load": {**WEIGHTS_ONLY, "activations": 0},
    "reference": {**STANDING, "activations": 10 * GIB},
    "forward": {**STANDING, "activations": 26 * GIB},
    "backward": {**STANDING, "activations": 30 * GIB},
    "step": {**STANDING, "activations": 2 * GIB},
    "eval": {**STANDING, "activations": 12 * GIB},
    "save": {**STANDING, "activations": 0},
}
PROFILE = """
[train]
micro_batch_pairs = 4
gradient_accumulation_steps = 8
gradient_checkpointing = true
[data]
max_length_tokens = 1024
"""
OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 6.00 GiB. GPU 1 has a total capacity of 80.00 GiB of which 1.50 GiB is"
    " free. Including non-PyTorch memory, this process has 74.00 GiB memory in use. Of the allocated memory 68.00 GiB"
    " is allocated by PyTorch, and 4.00 GiB is reserved by PyTorch but unallocated."
)


def plan(ranks: int) -> dict[str, Any]:
    """A plan as `dpo-daemon plan --json` writes it, as far as the monitor reads it."""
    return {
        "gpu": {"name": "NVIDIA H100 80GB HBM3", "capacity_bytes": CAPACITY},
        "per_gpu": [
            {
                "rank": rank,
                "phases": PHASES,
                "nvml_bytes": {"low": 57 * GIB, "high": 66 * GIB},
                "cache_fragmentation_bytes": {"low": GIB, "high": 6 * GIB},
                "context_communication_bytes": {"low": GIB, "high": 3 * GIB},
            }
            for rank in range(ranks)
        ],
    }


@dataclass
class CardRun:
    """A run whose ranks are on cards, eight a host; `on_card` false writes what a CPU measures."""

    path: Path
    ranks: int = 8
    on_card: bool = True
    planned: bool = True
    others_bytes: int = 0
    growth_bytes: int = 0
    """That every rank reserves more at each step."""
    activations: dict[int, int] = field(default_factory=dict)
    """Of ranks that differ from the others."""
    now_s: float = START_S

    def __post_init__(self) -> None:
        made: RunDirectory = create_run(self.path, "cards")
        # The name carries the time of day, which no picture must depend on.
        fixed = made.path.with_name("20261124-0312-cards")
        info = json.loads(made.run_file.read_text()) | {"name": fixed.name}
        made.run_file.write_text(json.dumps(info))
        made.path.rename(fixed)
        self.run = RunDirectory(fixed)
        self.number = 0
        self.new_attempt()

    def new_attempt(self) -> None:
        """Begin the next attempt: all ranks start, and an agent on each host."""
        self.close()
        self.number += 1
        content = json.dumps(plan(self.ranks) if self.planned else {}).encode()
        self.attempt = create_attempt(self.run, PROFILE, content)
        self.writers: dict[str, EventWriter] = {}
        for rank in range(self.ranks):
            self.put(
                f"rank-{rank:05d}",
                events.Start(
                    **self.stamp(), role="rank", host=self.host(rank), pid=1000 + rank, boot_id="boot",
                    process_started=self.now_s, rank=rank, world_size=self.ranks, attempt=self.number, max_steps=400,
                ),
            )  # fmt: skip

    def close(self) -> None:
        """Close all writers of the attempt."""
        for writer in getattr(self, "writers", {}).values():
            writer.close()
        self.writers = {}

    def stamp(self) -> events.Stamp:
        return events.Stamp(v=events.SCHEMA_VERSION, t=self.now_s, m=self.now_s - START_S)

    @staticmethod
    def host(rank: int) -> str:
        return f"node{rank // 8 + 1:03d}"

    def put(self, name: str, *found: events.Event) -> None:
        """Append to a file of the attempt; closed at once where a thousand threads would be too many."""
        if name not in self.writers:
            if self.ranks > 64:
                self._append(name, *found)
                return
            self.writers[name] = EventWriter(self.attempt.event_file(name))
        for event in found:
            self.writers[name].put(event)

    def _append(self, name: str, *found: events.Event) -> None:
        with self.attempt.event_file(name).open("ab") as file:
            file.write(b"".join(events.encode(event) for event in found))

    def memory(
        self, rank: int, phase: events.PhaseName, step: int | None, standing: dict[str, int]
    ) -> events.Memory:
        activations = self.activations.get(rank, 28 * GIB) if phase == "train" else 6 * GIB
        held = sum(standing.values())
        grown = self.growth_bytes * (step or 0)
        on_card = {
            "allocated_bytes": held, "peak_allocated_bytes": held + activations,
            "reserved_bytes": held + activations + 3 * GIB + grown,
        } if self.on_card else {}  # fmt: skip
        return events.Memory(
            **self.stamp(), phase=phase, step=step, components=standing,
            rss_bytes=8 * GIB + self.growth_bytes * (step or 0), **on_card,
        )  # fmt: skip

    def measure(self, phase: events.PhaseName, step: int | None = None) -> None:
        """All ranks measure, and NVML is asked, once."""
        standing = STANDING if step else WEIGHTS_ONLY
        cards: dict[str, list[events.Gpu]] = {}
        for rank in range(self.ranks):
            memory = self.memory(rank, phase, step, standing)
            self.put(f"rank-{rank:05d}", memory)
            if self.on_card:
                process = (memory.reserved_bytes or 0) + 2 * GIB
                cards.setdefault(self.host(rank), []).append(
                    events.Gpu(
                        **self.stamp(), host=self.host(rank), index=rank % 8, name="NVIDIA H100 80GB HBM3",
                        memory_total_bytes=CAPACITY, memory_used_bytes=process + self.others_bytes,
                        process_bytes={str(1000 + rank): process},
                    )
                )  # fmt: skip
        for host, found in cards.items():
            self.put(f"agent-{host}", *found)

    def train(self, steps: int) -> None:
        """Load, then train from step 1."""
        self.put("rank-00000", events.Phase(**self.stamp(), name="load", state="begin"))
        self.measure("load")
        self.put("rank-00000", events.Phase(**self.stamp(), name="load", state="end"))
        self.put("rank-00000", events.Phase(**self.stamp(), name="train", state="begin"))
        for step in range(1, steps + 1):
            self.now_s += STEP_S
            self.put(
                "rank-00000",
                events.Step(**self.stamp(), step=step, metrics={"loss": 0.6}, times_s={"step": STEP_S}),
            )
            self.measure("train", step)
        self.flush()

    def run_out(self, rank: int) -> None:
        """A rank runs out of memory, as the trainer tells it."""
        self.now_s += 1
        self.put(
            f"rank-{rank:05d}",
            events.Alert(**self.stamp(), code="oom", severity="critical", message=OUT_OF_MEMORY),
            events.Exit(**self.stamp(), role="rank", rank=rank, code=1, reason="oom"),
        )
        self.put(
            "rank-00000",
            events.Exit(**self.stamp(), role="rank", rank=0, code=1, reason="another rank ended"),
        )
        self.flush()

    def flush(self) -> None:
        assert all(writer.flush() for writer in self.writers.values())
