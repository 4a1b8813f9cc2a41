"""Whether the Hugging Face hub answers, found out within five seconds."""

from __future__ import annotations

import contextlib
import threading
from functools import cache

import datasets.config
import huggingface_hub.constants
from huggingface_hub import HfApi

CONNECT_TIMEOUT_S = 5.0


@cache
def hub_answers() -> bool:
    """Ask the hub once a process; no answer within five seconds is none.

    A thread asks, because looking up a name can hang for longer than any timeout of a socket.
    """
    if huggingface_hub.constants.is_offline_mode():
        return False
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(Exception):
            HfApi().model_info("HuggingFaceTB/SmolLM2-135M-Instruct", timeout=CONNECT_TIMEOUT_S)
            answered.set()

    thread = threading.Thread(target=ask, name="hub-probe", daemon=True)
    thread.start()
    thread.join(CONNECT_TIMEOUT_S)
    return answered.is_set()


def set_offline(offline: bool) -> None:
    """Let the hub's libraries read their cache only; they would retry for minutes otherwise."""
    huggingface_hub.constants.HF_HUB_OFFLINE = offline
    datasets.config.HF_HUB_OFFLINE = offline
