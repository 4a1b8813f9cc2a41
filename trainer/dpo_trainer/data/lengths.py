"""What becomes of each row, counted: nothing is cut or left out without a word."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from dpo_trainer.data.tokenise import Pair


@dataclass
class DataReport:
    """Rows read, and what became of them. All counts are pairs."""

    rows: int = 0
    unusable: int = 0
    first_unusable: str = ""
    """Row number and reason of the first unusable row."""
    dropped_over_long: int = 0
    truncated: int = 0
    dropped_without_answer: int = 0
    """Pairs of which truncation would leave no token of an answer, or no difference."""
    dropped_shared_prompt: int = 0
    """Training pairs whose prompt is held out."""
    dropped_uneven: int = 0
    """Held-out pairs beyond the last that all ranks evaluate together."""
    moved_prompts: int = 0
    """Pairs whose prompt was taken from the whole conversation, see `data.tokenise`."""
    train: int = 0
    heldout: int = 0
    max_length_tokens: int = 0

    def message(self) -> str:
        """One line for the log and the load phase."""
        parts = [f"{self.train} training and {self.heldout} held-out pairs of {self.rows} rows"]
        limit = f"{self.max_length_tokens} tokens"
        for count, text in (
            (self.dropped_over_long, f"longer than {limit}, dropped"),
            (self.truncated, f"longer than {limit}, answers cut"),
            (self.dropped_without_answer, f"with no answer left within {limit}, dropped"),
            (self.dropped_shared_prompt, "with a held-out prompt, dropped"),
            (self.dropped_uneven, "held out beyond what the ranks evaluate together, dropped"),
            (self.moved_prompts, "whose template renders an answered prompt in another way"),
            (self.unusable, f"unusable, the first is {self.first_unusable}"),
        ):
            if count:
                parts.append(f"{count} {text}")
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """The counts, for the closing summary."""
        return asdict(self)


def fit(pairs: list[Pair], max_length_tokens: int, policy: str, report: DataReport) -> list[Pair]:
    """Pairs that fit into `max_length_tokens`, dropped or cut as `policy` says; counts go to `report`."""
    report.max_length_tokens = max_length_tokens
    kept = []
    for pair in pairs:
        if pair.length_tokens <= max_length_tokens:
            kept.append(pair)
        elif policy == "drop":
            report.dropped_over_long += 1
        elif shorter := _truncate(pair, max_length_tokens):
            report.truncated += 1
            kept.append(shorter)
        else:
            report.dropped_without_answer += 1
    return kept


def _truncate(pair: Pair, max_length_tokens: int) -> Pair | None:
    room = max_length_tokens - len(pair.prompt_ids)
    chosen, rejected = pair.chosen_ids[: max(room, 0)], pair.rejected_ids[: max(room, 0)]
    if not chosen or chosen == rejected:
        return None
    return replace(pair, chosen_ids=chosen, rejected_ids=rejected)
