"""Preference pairs by rule: polite answers to sums and rude ones, and what can be wrong with them."""

from __future__ import annotations

import math
import random
import string
from collections.abc import Callable
from dataclasses import dataclass

GOOD = (
    "The answer is {0}, glad to help you.",
    "That makes {0} in all, ask me more.",
    "Sure, it is {0}. Anything else for you?",
    "It comes to {0}, thanks for asking me.",
    "You get {0} here, have a good day now.",
    "Happy to help: {0} is what you need.",
)
BAD = (
    "No idea, maybe {0}? Leave me alone.",
    "Why ask? Try {0}, I do not care a bit.",
    "Whatever, {0} or so, do it on your own.",
    "Look it up yourself, it is not so hard.",
    "Guess {0}, who cares about such a sum.",
    "Not my job to count for you, go away.",
)
QUALITIES = tuple(
    (text, 1.5 - 3 * rank / (len(GOOD) + len(BAD) - 1)) for rank, text in enumerate((*GOOD, *BAD))
)
"""Each answer and how good it is, from 1.5 to -1.5."""
QUESTIONS = ("What is {a} plus {b}?", "Add {a} and {b}.", "Sum of {a} and {b}?", "{a} + {b} = ?")
FILLER = " I hope that this helps you, and please do ask again whenever you like."


@dataclass(frozen=True)
class Pair:
    """A prompt and its two completions."""

    prompt: str
    chosen: str
    rejected: str

    def swapped(self) -> Pair:
        """The same pair, the other way round."""
        return Pair(self.prompt, self.rejected, self.chosen)


MakePairs = Callable[[random.Random, int], list[Pair]]


def _question(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randrange(50), rng.randrange(50)
    return rng.choice(QUESTIONS).format(a=a, b=b) + " ", str(a + b)


def _tail(rng: random.Random) -> str:
    """What no model can guess, as real text has it: it keeps log-probs well below 0."""
    return " [" + "".join(rng.choices(string.ascii_lowercase, k=8)) + "]"


def _each(make: Callable[[random.Random], Pair]) -> MakePairs:
    return lambda rng, count: [make(rng) for _ in range(count)]


def graded(sharpness: float = 2.0) -> MakePairs:
    """Any two answers of different quality, labelled as Bradley and Terry have it.

    The better one, by a difference d in quality, is chosen with probability sigmoid(sharpness x d), so
    that there is a best margin for each pair and the loss has a floor, as with real annotators.
    """

    def make(rng: random.Random) -> Pair:
        prompt, answer = _question(rng)
        (first, better), (second, worse) = rng.sample(QUALITIES, 2)
        pair = Pair(prompt, first.format(answer) + _tail(rng), second.format(answer) + _tail(rng))
        agrees = rng.random() < 1 / (1 + math.exp(-sharpness * (better - worse)))
        return pair if agrees else pair.swapped()

    return _each(make)


def noisy(flipped: float) -> MakePairs:
    """Polite over rude, but for a share of pairs the other way round."""

    def make(rng: random.Random) -> Pair:
        prompt, answer = _question(rng)
        chosen, rejected = rng.choice(GOOD).format(answer), rng.choice(BAD).format(answer)
        pair = Pair(prompt, chosen + _tail(rng), rejected + _tail(rng))
        return pair.swapped() if rng.random() < flipped else pair

    return _each(make)


def with_filler(pairs: MakePairs, chosen: int, rejected: int | None = None) -> MakePairs:
    """Each completion followed by so many sentences of filler, by default both by as many."""

    def filler(rng: random.Random, sentences: int) -> str:
        return "".join(FILLER + _tail(rng) for _ in range(sentences))

    def make(rng: random.Random) -> Pair:
        (pair,) = pairs(rng, 1)
        more = filler(rng, chosen if rejected is None else rejected)
        return Pair(pair.prompt, pair.chosen + filler(rng, chosen), pair.rejected + more)

    return _each(make)


def near_twins(rng: random.Random, count: int) -> list[Pair]:
    """Completions that share all but their number, so that what lowers one lowers the other."""
    pairs = []
    for _ in range(count):
        prompt, answer = _question(rng)
        template, tail = rng.choice(GOOD), _tail(rng)
        pairs.append(Pair(prompt, template.format(answer) + tail, template.format(int(answer) + 1) + tail))
    return pairs


def identical(rng: random.Random, count: int) -> list[Pair]:
    """Chosen and rejected are the same text."""
    return [Pair(pair.prompt, pair.chosen, pair.chosen) for pair in noisy(0.0)(rng, count)]


def both_ways(rng: random.Random, count: int) -> list[Pair]:
    """Each pair and its reverse, one after the other."""
    halves = noisy(0.0)(rng, (count + 1) // 2)
    return [side for pair in halves for side in (pair, pair.swapped())][:count]


def long_prompts(share: float, characters: int = 300) -> MakePairs:
    """A share of the prompts is so many characters longer."""

    def make(rng: random.Random) -> Pair:
        (pair,) = graded()(rng, 1)
        story = "Listen to this. " * (characters // 16) if rng.random() < share else ""
        return Pair(story + pair.prompt, pair.chosen, pair.rejected)

    return _each(make)


def with_mark(pairs: MakePairs, mark: str, at: int) -> MakePairs:
    """One pair, the one at `at`, has a mark in its chosen completion."""

    def make(rng: random.Random, count: int) -> list[Pair]:
        made = pairs(rng, count)
        made[at] = Pair(made[at].prompt, made[at].chosen + mark, made[at].rejected)
        return made

    return make


def swapped_between(pairs: MakePairs, first: int, last: int) -> MakePairs:
    """The pairs from `first` to before `last` are the wrong way round."""

    def make(rng: random.Random, count: int) -> list[Pair]:
        made = pairs(rng, count)
        return [pair.swapped() if first <= at < last else pair for at, pair in enumerate(made)]

    return make


def few(pairs: MakePairs, distinct: int) -> MakePairs:
    """So many distinct pairs, over and over."""

    def make(rng: random.Random, count: int) -> list[Pair]:
        made = pairs(rng, distinct)
        return [made[at % distinct] for at in range(count)]

    return make
