"""Pairs cut in their text, for a tokenizer under which a byte is a token."""

from __future__ import annotations

from dataclasses import replace

from dpo_trainer.data.conversation import Message, Preference
from dpo_trainer.data.tokenise import PairTokenizer
from dpo_trainer.errors import TrainerError

_BYTES_AT_LEAST = 16
"""Of question and answer together; less would leave nothing to tell answers apart."""


class Shortener:
    """Cuts a pair to fit into `max_length_tokens`: its last question, then both answers.

    Raises:
        TrainerError: the chat template alone takes nearly all of it.
    """

    def __init__(self, encoder: PairTokenizer, max_length_tokens: int) -> None:
        self._encoder = encoder
        self._limit = max_length_tokens
        smallest = Preference([_turn("user", "a")], _turn("assistant", "b"), _turn("assistant", "c"))
        self._room_bytes = max_length_tokens - encoder.pair(0, smallest).length_tokens + 2
        if self._room_bytes < _BYTES_AT_LEAST:
            raise TrainerError(
                f"data.max_length_tokens: {max_length_tokens} leaves {max(self._room_bytes, 0)} bytes of text "
                "for the byte-level tokenizer that stands in; rehearse with a longer one, or with the model's "
                "own tokenizer in a local folder"
            )

    def __call__(self, preference: Preference) -> Preference:
        """The pair itself where it fits.

        Raises:
            UnusableRowError: the template refuses it.
        """
        if self._encoder.pair(0, preference).length_tokens <= self._limit:
            return preference
        question = _clip(_question(preference), self._room_bytes // 2)
        room_bytes = self._room_bytes - len(question.encode())
        chosen, rejected = _clip_apart(_text(preference.chosen), _text(preference.rejected), room_bytes)
        if isinstance(preference.prompt, str):
            return Preference(question, chosen, rejected)
        return replace(
            preference,
            prompt=[_turn("user", question)],
            chosen=_turn("assistant", chosen),
            rejected=_turn("assistant", rejected),
        )


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _question(preference: Preference) -> str:
    if isinstance(preference.prompt, str):
        return preference.prompt
    return str(preference.prompt[-1]["content"])


def _text(answer: Message | str) -> str:
    return answer if isinstance(answer, str) else str(answer["content"])


def _clip(text: str, limit_bytes: int) -> str:
    """The beginning of a text, without half a character at its end."""
    return text.encode()[:limit_bytes].decode(errors="ignore")


def _clip_apart(chosen: str, rejected: str, limit_bytes: int) -> tuple[str, str]:
    """Both answers from their beginning; where they are alike for too long, from where they part."""
    short, other = _clip(chosen, limit_bytes), _clip(rejected, limit_bytes)
    if short != other and short.strip() and other.strip():
        return short, other
    start = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), 0)
    return _clip(chosen[start:], limit_bytes), _clip(rejected[start:], limit_bytes)
