"""What lives in memory while operators run, tensor by tensor, and the moment when that is the most."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

CHECKPOINTS, LAYER, LOGITS = "checkpoints", "layer", "logits"
"""Parts of the activations."""


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """Equal tensors that live at one moment."""

    label: str
    width: int
    """Elements for each token, or in all."""
    item: int
    """Bytes of an element."""
    per_token: bool = True
    count: int = 1
    part: str = LAYER

    def size(self, tokens: int) -> int:
        """Bytes."""
        return self.count * self.width * self.item * (tokens if self.per_token else 1)


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """What lives when a layer or the head needs the most, in a pass over so many tokens."""

    tokens: int
    tensors: tuple[Tensor, ...] = ()
    at_head: bool = False

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(tensor.size(self.tokens) for tensor in self.tensors)

    def part(self, name: str) -> int:
        """Bytes of one part."""
        return sum(tensor.size(self.tokens) for tensor in self.tensors if tensor.part == name)


class Ledger:
    """Tensors that live, and how many names each has: it goes with its last one, as torch's do."""

    def __init__(self, tokens: int, tensors: Iterable[Tensor] = ()) -> None:
        self.tokens = tokens
        self.size = 0
        self.recording = True
        """Whether the present moment may become the peak."""
        self._peak: tuple[Tensor, ...] = ()
        self._peak_size = -1
        self._live: dict[int, Tensor] = {}
        self._names: dict[int, int] = {}
        self._made = 0
        for tensor in tensors:
            self.add(tensor)

    def add(self, tensor: Tensor) -> int:
        """A new tensor with one name; its number."""
        self._made += 1
        self._live[self._made] = tensor
        self._names[self._made] = 1
        self.size += tensor.size(self.tokens)
        if self.recording and self.size > self._peak_size:
            self._peak_size = self.size
            self._peak = self.live()
        return self._made

    def put(self, label: str, width: int, item: int) -> int:
        """A new tensor of `width` elements of `item` bytes for each token."""
        return self.add(Tensor(label=label, width=width, item=item))

    def hold(self, number: int) -> int:
        """One name more."""
        self._names[number] += 1
        return number

    def drop(self, *numbers: int) -> None:
        """One name less for each."""
        for number in numbers:
            self._names[number] -= 1
            if not self._names[number]:
                del self._names[number]
                self.size -= self._live.pop(number).size(self.tokens)

    def moment(self, *, at_head: bool) -> Moment:
        """What lived when it was the most, since the last call."""
        found = Moment(tokens=self.tokens, tensors=self._peak, at_head=at_head)
        self._peak, self._peak_size = (), -1
        return found

    def live(self) -> tuple[Tensor, ...]:
        """All tensors that live."""
        return tuple(self._live.values())
