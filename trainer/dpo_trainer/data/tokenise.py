"""From conversations to token ids, for any chat template.

The prompt is what the model sees when it has to answer: the shared turns with the generation
prompt. The completion is the rest of the whole conversation's rendering, cut behind its first
end-of-turn token. Both are tokenised without added special tokens, because templates write
their own BOS, and Qwen's and SmolLM2's put a newline behind the end of a turn which no model
ever generates.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from dpo_trainer.data.conversation import Message, Preference, UnusableRowError
from dpo_trainer.errors import TrainerError

_MARKER = "dpo-answer-5f1d0c"
"""Stands in for the answer where the place of the answer in a rendering is looked for."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference pair in token ids. `id` is the row's number in its data set."""

    id: int
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def length_tokens(self) -> int:
        """Tokens of the longer of the two sequences."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


class PairTokenizer:
    """Tokenises pairs with one tokenizer and its chat template.

    Raises:
        TrainerError: the tokenizer has neither an end-of-turn nor an end-of-sequence token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.has_template = bool(tokenizer.chat_template)
        self.end_of_turn_id = self._find_end_of_turn()
        self.moved_prompts = 0
        """Pairs whose prompt is not how the whole conversation begins, so that the prompt was
        taken from the whole conversation instead."""

    def pair(self, row_id: int, preference: Preference) -> Pair:
        """Token ids of one pair.

        Raises:
            UnusableRowError: the template refuses the conversation, or an answer would have
                more than one end of turn.
        """
        if isinstance(preference.prompt, str) and not self._wants_template(preference.prompt):
            return self._raw_pair(row_id, preference)
        turns, chosen, rejected = _as_turns(preference)
        waiting = self._render(turns, waiting=True)
        prompt, good = self._split(waiting, turns, chosen)
        other_prompt, bad = self._split(waiting, turns, rejected)
        self.moved_prompts += prompt != waiting
        if prompt != other_prompt:
            raise UnusableRowError("the chat template renders the shared turns in two ways")
        prompt_ids = self._encode(prompt)
        return Pair(
            row_id,
            prompt_ids,
            self._completion(prompt, prompt_ids, good, chosen["content"]),
            self._completion(prompt, prompt_ids, bad, rejected["content"]),
        )

    def _wants_template(self, prompt: str) -> bool:
        """A text prompt is a user turn, unless it holds special tokens: then it is rendered already."""
        specials = self._tokenizer.all_special_tokens
        return self.has_template and not any(token in prompt for token in specials)

    def _raw_pair(self, row_id: int, preference: Preference) -> Pair:
        prompt = str(preference.prompt)
        added = not any(token in prompt for token in self._tokenizer.all_special_tokens)
        prompt_ids: list[int] = self._tokenizer(prompt, add_special_tokens=added)["input_ids"]
        while prompt_ids and prompt_ids[-1] == self._tokenizer.eos_token_id:
            prompt_ids = prompt_ids[:-1]
        chosen, rejected = str(preference.chosen), str(preference.rejected)
        return Pair(
            row_id,
            prompt_ids,
            self._completion(prompt, prompt_ids, chosen, ""),
            self._completion(prompt, prompt_ids, rejected, ""),
        )

    def _split(self, waiting: str, turns: list[Message], answer: Message) -> tuple[str, str]:
        """Rendered prompt and completion; `waiting` is the rendering that waits for an answer.

        A template that renders a prompt differently once it is answered (it opens a block of
        thought only when it waits for an answer) has no such prefix. Then the prompt is what
        stands before the answer in the whole conversation, which is what the model is trained on.
        """
        whole = self._render([*turns, answer])
        if whole.startswith(waiting):
            return waiting, whole[len(waiting) :]
        head, tail = self._around_answer(turns, answer)
        if not whole.startswith(head) or not whole.endswith(tail):
            raise UnusableRowError("the chat template changes earlier turns with the answer")
        return head, whole[len(head) :]

    def _around_answer(self, turns: list[Message], answer: Message) -> tuple[str, str]:
        rendered = self._render([*turns, {**answer, "content": _MARKER}])
        head, marker, tail = rendered.partition(_MARKER)
        if not marker or _MARKER in tail:
            raise UnusableRowError("the chat template does not show the answer exactly once")
        return head, tail

    def _completion(self, prompt: str, prompt_ids: list[int], completion: str, content: str) -> list[int]:
        if self.end_of_turn_id in self._encode(content):
            raise UnusableRowError("an answer holds the end-of-turn token in its text")
        whole_ids = self._encode(prompt + completion)
        # Tokens must not merge over the boundary: the model will see the prompt's own tokens.
        fits = whole_ids[: len(prompt_ids)] == prompt_ids
        ids = whole_ids[len(prompt_ids) :] if fits else self._encode(completion)
        if self.end_of_turn_id in ids:
            return ids[: ids.index(self.end_of_turn_id) + 1]
        return [*ids, self.end_of_turn_id]

    def _find_end_of_turn(self) -> int:
        if self.has_template:
            for token_id in self._encode(self._tail_of_answer()):
                if token_id in self._special_ids():
                    return token_id
        eos: int | None = self._tokenizer.eos_token_id
        if eos is None:
            raise TrainerError(
                "model.base: its tokenizer has no end-of-sequence token; use an instruction-tuned model"
            )
        return eos

    def _tail_of_answer(self) -> str:
        """What the template writes behind an answer; some want a system turn first, and nothing is
        known of one that refuses both."""
        question: list[Message] = [{"role": "user", "content": "?"}]
        for turns in (question, [{"role": "system", "content": "?"}, *question]):
            with suppress(UnusableRowError):
                return self._around_answer(turns, {"role": "assistant"})[1]
        return ""

    def _special_ids(self) -> set[int]:
        added = self._tokenizer.added_tokens_decoder
        return {i for i, token in added.items() if token.special} | set(self._tokenizer.all_special_ids)

    def _render(self, messages: list[Message], *, waiting: bool = False) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=waiting
            )
        except TemplateError as error:
            raise UnusableRowError(f"the chat template refuses it: {error}") from error
        return str(text)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _as_turns(preference: Preference) -> tuple[list[Message], Message, Message]:
    if isinstance(preference.prompt, str):
        return (
            [{"role": "user", "content": preference.prompt}],
            {"role": "assistant", "content": preference.chosen},
            {"role": "assistant", "content": preference.rejected},
        )
    assert isinstance(preference.chosen, dict)
    assert isinstance(preference.rejected, dict)
    return preference.prompt, preference.chosen, preference.rejected
