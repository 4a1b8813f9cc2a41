"""Everything a rehearsal needs, written into one folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dpo_profiles.schema import Profile
from dpo_trainer.errors import TrainerError
from dpo_trainer.files import whole_folder
from dpo_trainer.model.package import Progress
from dpo_trainer.rehearsal.base import find_base
from dpo_trainer.rehearsal.model import write_adapter, write_model
from dpo_trainer.rehearsal.pairs import sample_pairs, write_pairs

LAYERS_AT_LEAST = 4
_STEPS = 4


@dataclass(frozen=True)
class Prepared:
    """What the rehearsal's profile names instead of the profile's own."""

    model: str
    data: str
    adapter: str
    """Empty where the profile makes a new adapter."""
    notes: list[str] = field(default_factory=list)
    """What was replaced, and why."""

    def as_dict(self) -> dict[str, Any]:
        """The JSON object that is printed."""
        return asdict(self)


def prepare(profile: Profile, into: Path, ranks: int, layers: int | None, progress: Progress) -> Prepared:
    """Write `into`/model, `into`/pairs.jsonl and, where the profile starts from one, `into`/adapter.

    Args:
        ranks: ranks of the rehearsal.
        layers: decoder layers of the small model; None is one a rank, and 4 at least.

    Raises:
        Refused: the profile's parts can be read and do not fit together.
        TrainerError: they cannot be used, or `into` holds a rehearsal already.
        OSError: the disk does not take it.
    """
    into = into.expanduser().absolute()
    model_folder, pairs_file, adapter_folder = into / "model", into / "pairs.jsonl", into / "adapter"
    for path in (model_folder, pairs_file, adapter_folder):
        if path.exists():
            raise TrainerError(f"--into: {path}: is there already; give another folder or remove it")
    base = find_base(profile, progress)
    progress(1, _STEPS, "choosing pairs")
    sample = sample_pairs(profile, base.tokenizer, ranks, shorten=base.stands_in)
    progress(2, _STEPS, "making the model")
    layers = layers or max(LAYERS_AT_LEAST, ranks)
    with whole_folder(model_folder) as folder:
        model = write_model(base, layers, profile.train.seed, profile.model.base, folder)
    config = model.config
    smaller = (
        f"the model is {config.num_hidden_layers} random layers of width {config.hidden_size} in place of "
        f"{base.config.num_hidden_layers} of width {base.config.hidden_size}"
    )
    notes = [base.note, smaller, *sample.notes]
    write_pairs(sample.rows, pairs_file)
    if not profile.adapter.path:
        return Prepared(str(model_folder), str(pairs_file), "", notes)
    progress(3, _STEPS, "making the adapter")
    with whole_folder(adapter_folder) as folder:
        write_adapter(model, profile.adapter, model_folder, folder)
    notes.append(f"a random adapter of the same shape stands in for {profile.adapter.path}")
    return Prepared(str(model_folder), str(pairs_file), str(adapter_folder), notes)
