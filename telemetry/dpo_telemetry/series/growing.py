"""An array that grows at its end, and whose beginning never changes."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

Number = TypeVar("Number", np.int64, np.float64)

FIRST_CAPACITY = 16


class Growing(Generic[Number]):
    """Numbers of one kind in one piece of memory, with room to spare at the end.

    What `values` handed out stays right while more is added, so that another thread may read it:
    values are added behind it, in the same memory or in a larger copy.
    """

    def __init__(self, kind: type[Number], expected: int = 0) -> None:
        """`expected` values have room from the start; what is not written to takes no memory."""
        self._data: npt.NDArray[Number] = np.empty(max(FIRST_CAPACITY, expected), kind)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def values(self) -> npt.NDArray[Number]:
        """All values, shape (n,), without a copy; not to be written to."""
        found = self._data[: self._n]
        found.flags.writeable = False
        return found

    def append(self, value: float) -> None:
        """Add one value."""
        self._make_room(1)
        self._data[self._n] = value
        self._n += 1

    def extend(self, values: npt.ArrayLike, n: int) -> None:
        """Add `n` values: an array of that length, or one number for all of them.

        The first array is taken over where it can be, not copied: who hands it in writes to it no more.
        """
        if not self._n and n > len(self._data) and self._can_be(values):
            self._data, self._n = values, n  # type: ignore[assignment]
            return
        self._make_room(n)
        self._data[self._n : self._n + n] = values
        self._n += n

    def last(self) -> Any:
        """The newest value.

        Raises:
            IndexError: there is none.
        """
        if not self._n:
            raise IndexError("nothing was added yet")
        return self._data[self._n - 1].item()

    def _can_be(self, values: npt.ArrayLike) -> bool:
        return (
            isinstance(values, np.ndarray)
            and values.ndim == 1
            and values.dtype == self._data.dtype
            and values.flags.c_contiguous
        )

    def _make_room(self, n: int) -> None:
        if self._n + n > len(self._data):
            # Twice as much: each value is copied about once, and what is not written to takes no memory.
            larger = np.empty(2 * (self._n + n) + FIRST_CAPACITY, self._data.dtype)
            larger[: self._n] = self._data[: self._n]
            self._data = larger
