"""Loss and beta as a log's surroundings say them: only what belongs to preference tuning for certain."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from dpo_telemetry.foreign.log import ForeignLog

MAX_LINES_OF_CONFIG = 1000

_OPENS = re.compile(r"\b(?:DPOConfig|DPOTrainingArguments)\((?!self\b)")
_BETA = re.compile(r"(?:^|[\s(,])beta=([-+\d.eE]{1,30})(?=[,)\s]|$)")
_KIND = re.compile(r"""(?:^|[\s(,])loss_type=(\[[^\]\n]{0,200}\]|['"]?\w{1,40}['"]?)""")
_FACTORY_BETA = re.compile(r"""\bpref_beta\b['"]?\s{0,4}[:=]\s{0,4}([-+\d.eE]{1,30})""")
_FACTORY_KIND = re.compile(r"""\bpref_loss\b['"]?\s{0,4}[:=]\s{0,4}['"]?(\w{1,40})""")
_NAME = re.compile(r"\w{1,40}")
_HINTS = ("DPOConfig(", "DPOTrainingArguments(", "pref_beta", "pref_loss")


class Surroundings:
    """Collects what the text around the rows says; two different answers are none."""

    def __init__(self) -> None:
        self._betas: set[float] = set()
        self._kinds: set[str] = set()
        self._lines_left = 0

    def look(self, lines: list[str]) -> None:
        """Lines of output or of a program's text."""
        text = "\n".join(lines)
        if self._lines_left or any(hint in text for hint in _HINTS):
            for line in lines:
                self._look(line)

    def _look(self, text: str) -> None:
        self._add(_FACTORY_BETA.search(text), _FACTORY_KIND.search(text))
        opened = _OPENS.search(text)
        if opened is not None:
            self._lines_left = MAX_LINES_OF_CONFIG
            text = text[opened.end() :]
        if self._lines_left:
            self._lines_left -= 1
            self._add(_BETA.search(text), _KIND.search(text))
            if text.strip() == ")" or (opened is not None and text.rstrip().endswith(")")):
                self._lines_left = 0

    def arguments(self, written: Mapping[str, Any]) -> None:
        """Training arguments; those of preference tuning have both keys."""
        if "beta" not in written or "loss_type" not in written:
            return
        beta, kind = written["beta"], written["loss_type"]
        if isinstance(beta, int | float) and not isinstance(beta, bool):
            self._add_beta(float(beta))
        self._add_kinds(kind if isinstance(kind, list) else [kind])

    def arguments_text(self, text: bytes) -> None:
        """Training arguments as JSON; anything else says nothing."""
        try:
            written = json.loads(text)
        except (ValueError, RecursionError):
            return
        if isinstance(written, dict):
            self.arguments(written)

    def tell(self, log: ForeignLog) -> None:
        """Put what is certain into the log."""
        log.beta = next(iter(self._betas)) if len(self._betas) == 1 else None
        log.loss_kind = next(iter(self._kinds)) if len(self._kinds) == 1 else None

    def _add(self, beta: re.Match[str] | None, kind: re.Match[str] | None) -> None:
        if beta is not None:
            with contextlib.suppress(ValueError):
                self._add_beta(float(beta[1]))
        if kind is not None:
            self._add_kinds(_NAME.findall(kind[1]))

    def _add_beta(self, beta: float) -> None:
        if 0 < beta < math.inf:
            self._betas.add(beta)

    def _add_kinds(self, kinds: list[Any]) -> None:
        if kinds and all(isinstance(kind, str) for kind in kinds) and kinds != ["None"]:
            self._kinds.add("+".join(kinds))
