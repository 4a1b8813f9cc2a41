"""Raw output of a trainer: dict lines among progress bars and anything else.

The Hugging Face Trainer prints a dict a logged step through tqdm, which redraws its bar behind
it: the bar that follows a dict, else the one before it, says at which step it was logged. Bars
of other work (downloads, tokenising, evaluation) count to other totals; the total that belongs
to training is that of the first bar beside a training row.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from dpo_telemetry.foreign.log import SUMMARY_KEYS, ForeignLog, as_step, is_evaluation, numbers

FORMAT = "stdout"

MAX_SEGMENT_BYTES = 1 << 16
"""No dict line of a trainer comes near it; the rest of a longer line is passed over."""

_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_DICT = re.compile(r"\{\s*['\"][^{}]{1,20000}\}")
_LOOKS_LIKE_ROW = re.compile(r"\{\s*['\"](?:eval_)?(?:loss|rewards/|grad_norm|logps/)")
_BAR = re.compile(
    r"(?<![\d.])(?<!:)(?<!: )(?<!:  )\d{1,3}%\|[^|]{0,400}\|\s*(\d{1,12})/(\d{1,12})\s*\[[^\]]*\]?"
)
"""A bar of tqdm without a description: training has none."""
_NON_FINITE = re.compile(r"(?<![\w'\"])(-?)(nan|inf|NaN|Infinity)(?![\w'\"])")
_METRIC = re.compile(r"^(?:eval_|train_)?(?:loss$|grad_norm$|learning_rate$|rewards/|logps/|logits/|reward)")


def read(path: Path) -> ForeignLog:
    """The log; it has no rows when the output holds no dict line."""
    log = ForeignLog(FORMAT)
    rows = _Rows(log)
    with path.open("rb") as stream:
        for segment in _segments(iter(lambda: stream.read(1 << 20), b"")):
            rows.take(segment)
    rows.finish()
    return log


def _segments(blocks: Iterable[bytes]) -> Iterator[str]:
    """Pieces between newlines and carriage returns, ANSI sequences taken out."""
    rest, skipping = b"", False
    for block in blocks:
        pieces = re.split(rb"[\r\n]", rest + block)
        rest = pieces.pop()
        if skipping and pieces:
            pieces[0], skipping = b"", False
        for piece in pieces:
            if piece:
                yield _ANSI.sub("", piece[:MAX_SEGMENT_BYTES].decode("utf-8", "replace"))
        if len(rest) > MAX_SEGMENT_BYTES:
            if not skipping:
                yield _ANSI.sub("", rest[:MAX_SEGMENT_BYTES].decode("utf-8", "replace"))
            rest, skipping = b"", True
    if rest and not skipping:
        yield _ANSI.sub("", rest.decode("utf-8", "replace"))


class _Rows:
    """Joins each dict to the step that its progress bar shows."""

    def __init__(self, log: ForeignLog) -> None:
        self._log = log
        self._waiting: dict[str, float] | None = None
        self._bars = _Bars()
        self._counted = 0

    def take(self, segment: str) -> None:
        """Look at one piece of the output."""
        at = 0
        for match in _DICT.finditer(segment):
            self._look_for_bars(segment[at : match.start()])
            at = match.end()
            metrics = _parse(match[0])
            if metrics is None:
                self._log.lines_not_understood += bool(_LOOKS_LIKE_ROW.match(match[0]))
            elif not any(key in metrics for key in SUMMARY_KEYS) and any(map(_METRIC.match, metrics)):
                self.finish()
                self._waiting = metrics
                self._bars.row_begins(training=not is_evaluation(metrics))
        if at == 0 and _LOOKS_LIKE_ROW.search(segment):
            self._log.lines_not_understood += 1
        self._look_for_bars(segment[at:])

    def finish(self) -> None:
        """Give the row that waits for a bar the best step there is."""
        if self._waiting is None:
            return
        metrics, self._waiting = self._waiting, None
        logged, shown = as_step(metrics.pop("step", None)), self._bars.row_ends()
        if logged is not None:
            self._log.step_source = "logged"
            step = logged
        elif shown is not None:
            self._log.step_source = "progress bar"
            step = shown
        else:
            step = self._counted + (not is_evaluation(metrics))
        if not is_evaluation(metrics):
            self._counted = step
        self._log.add(step, metrics)

    def _look_for_bars(self, text: str) -> None:
        end = 0
        for match in _BAR.finditer(text):
            end = match.end()
            if self._bars.see(int(match[1]), int(match[2])):
                self.finish()
        if text[end:].strip():
            self._bars.before = None


class _Bars:
    """Tells training's bar from those of other work by its total, which a training row gives away."""

    def __init__(self) -> None:
        self.before: tuple[int, int] | None = None
        """Step and total of the bar that nothing but blanks has followed so far."""
        self._total: int | None = None
        self._step: int | None = None
        self._fresh = False
        self._training = False
        self._beside: tuple[int, int] | None = None

    def see(self, step: int, total: int) -> bool:
        """Note a bar; whether it is training's."""
        self.before = (step, total)
        if self._training and self._total is None:
            self._total = total
        if total == self._total:
            self._step, self._fresh = step, True
            return True
        if self._training and self._beside is None:
            self._beside = (step, total)
        return False

    def row_begins(self, *, training: bool) -> None:
        """A row was printed; the bar right before it counts where none follows."""
        self._training = training
        self._beside = self.before if training else None
        self.before = None

    def row_ends(self) -> int | None:
        """The step to give the row; None when no bar says."""
        if self._training and not self._fresh and self._beside is not None:
            # Another run in the same output counts to a total of its own.
            self._step, self._total = self._beside
        if self._training:
            self._training = self._fresh = False
        return self._step


def _parse(text: str) -> dict[str, float] | None:
    """Metrics of one dict as Python prints it; None when it is no such dict."""
    try:
        row = ast.literal_eval(_NON_FINITE.sub(r"'\1\2'", text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return numbers(row) if isinstance(row, dict) else None
