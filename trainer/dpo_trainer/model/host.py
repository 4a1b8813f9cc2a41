"""The host's memory while a model is loaded."""

from __future__ import annotations

import ctypes
from functools import cache


def give_back() -> None:
    """Return freed memory to the system, where the C library has to be asked for it.

    glibc keeps what many short-lived buffers leave between long-lived ones: twice the shards of a rank
    under ZeRO-3, in a model of 48 layers.
    """
    if (library := _libc()) is not None:
        library.malloc_trim(0)


@cache
def _libc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
    except OSError:
        return None
    return library if hasattr(library, "malloc_trim") else None
