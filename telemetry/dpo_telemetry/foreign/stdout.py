"""Raw output of a trainer: dict lines among progress bars and anything else.

The Hugging Face Trainer prints a dict a logged step through tqdm, which redraws its bar behind
it: the bar that follows a dict, else the one before it, says at which step it was logged. Bars
of other work (downloads, tokenising, evaluation) count to other totals; the total that belongs
to training is that of the first bar beside a training row.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dpo_telemetry.foreign import printed
from dpo_telemetry.foreign.bars import Bars, bar_alone, bars_in, unlabelled
from dpo_telemetry.foreign.log import ForeignLog
from dpo_telemetry.foreign.names import STEP_NAMES, is_evaluation, is_summary, metric_name, shows_training
from dpo_telemetry.foreign.rows import MAX_STEP, RowTaker, number
from dpo_telemetry.foreign.source import BLOCK_BYTES, Source
from dpo_telemetry.foreign.surroundings import Surroundings

FORMAT = "stdout"

MAX_SEGMENT_BYTES = 1 << 16
"""No dict line of a trainer comes near it; the rest of a longer line is passed over."""
MAX_LINES_WITHIN_ROW = 8
"""So many lines of a warning may be printed into the middle of a row."""
ROWS_AT_ONCE = 2048
MAX_MEANINGS = 1000
MAX_LABEL_CHARS = 80
ROWS_REMEMBERED = 1024
"""So many rows back the same row under another label is the same row."""

_ZEROS = bytes(BLOCK_BYTES)
"""A block of the hole that is left where a log was emptied under its writer."""
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,500}(?:\x07|\x1b\\)?)")
_LOOKS_LIKE_ROW = re.compile(r"\{\s{0,20}['\"](?:eval_|train/|eval/)?(?:loss|rewards/|grad_norm|logps/)")
_RANK = re.compile(r"\s{0,8}(?:\[(?:rank|default)(\d{1,6})\]|\[(\d{1,6})\]|(\d{1,6}):(?!\d))")
"""torchrun's and Slurm's label of the process that printed a line; a bare number may be anything."""


def read(source: Source) -> ForeignLog:
    """The log; it has no rows when the output holds no dict line."""
    return read_blocks(source.blocks(), ForeignLog(FORMAT), Surroundings())


def read_blocks(blocks: Iterable[bytes], log: ForeignLog, surroundings: Surroundings) -> ForeignLog:
    """Read output into a log that is empty so far."""
    rows = _Rows(log)
    for segments in _segments(blocks):
        surroundings.look(segments)
        for segment in segments:
            rows.take(segment)
    rows.end()
    surroundings.tell(log)
    return log


def _segments(blocks: Iterable[bytes]) -> Iterator[list[str]]:
    """Pieces between newlines and carriage returns, ANSI sequences taken out, block by block."""
    rest, skipping = b"", False
    for block in blocks:
        if block[:1] == b"\0" and (block == _ZEROS or not block.strip(b"\0")):
            continue
        pieces = (rest + block).replace(b"\r", b"\n").split(b"\n")
        rest = pieces.pop()
        if skipping and pieces:
            pieces[0], skipping = b"", False
        if pieces:
            yield _texts(pieces)
        if len(rest) > MAX_SEGMENT_BYTES:
            if not skipping:
                yield _texts([rest])
            rest, skipping = b"", True
    if rest and not skipping:
        yield _texts([rest])


def _texts(pieces: list[bytes]) -> list[str]:
    joined = b"\n".join(piece[:MAX_SEGMENT_BYTES] for piece in pieces if piece)
    text = joined.decode("utf-8", "replace")
    return (_ANSI.sub("", text) if "\x1b" in text else text).split("\n")


@dataclass(frozen=True)
class _Meaning:
    """What dicts with the same names are."""

    names: list[tuple[str, str]]
    """As it is written, and TRL's name."""
    renamed: bool
    step: str | None
    training: bool
    shows_training: bool
    summary: bool


@dataclass(frozen=True)
class _Row:
    """A row that was printed; it waits for its step."""

    metrics: dict[str, Any]
    step: object
    training: bool


def _meaning(written: tuple[str, ...]) -> _Meaning:
    names = [(key, name) for key in written if (name := metric_name(key)) is not None]
    metrics = [name for _, name in names]
    return _Meaning(
        names=names,
        renamed=metrics != list(written),
        step=next((name for name in STEP_NAMES if name in written), None),
        training=not any(map(is_evaluation, metrics)),
        shows_training=any(map(shows_training, metrics)),
        summary=any(map(is_summary, written)),
    )


class _Rows:
    """Joins each dict to the step that its progress bar shows."""

    def __init__(self, log: ForeignLog) -> None:
        self._log = log
        self._taker = RowTaker(log, logged=True)
        log.step_source = "counted"
        self._batch: list[dict[str, Any]] = []
        self._waiting: _Row | None = None
        self._bars = Bars()
        self._counted = 0
        self._meanings: dict[tuple[str, ...], _Meaning] = {}
        self._open: list[str] = []
        self._rank: str | None = None
        self._labelled: OrderedDict[tuple[Any, ...], str] = OrderedDict()
        """Label under which each of the last rows was printed first."""

    def take(self, segment: str) -> None:
        """Look at one piece of the output."""
        at = self._close(segment) if self._open else 0
        if "{" in segment:
            at = self._look_for_rows(segment, at)
        self._look_for_bars(segment[at:] if at else segment)

    def end(self) -> None:
        """The output is over."""
        self._log.lines_not_understood += bool(self._open)
        self._finish()
        self._taker.take(self._batch)

    def _look_for_rows(self, segment: str, at: int) -> int:
        while (found := printed.find(segment, at)) is not None:
            self._look_for_bars(segment[at : found.start])
            at = found.end
            text = segment[found.start : found.end]
            if found.complete:
                row = self._named(printed.items(text))
                if row is not None:
                    self._begin(row, segment)
                else:
                    self._log.lines_not_understood += bool(_LOOKS_LIKE_ROW.match(text))
            elif _LOOKS_LIKE_ROW.match(text):
                if at == len(segment):
                    self._open = [text]
                else:
                    self._log.lines_not_understood += 1
        return at

    def _close(self, segment: str) -> int:
        """Go on with a row that a line did not end; where in the segment it ends."""
        end, other = segment.find("}") + 1, segment.find("{") + 1
        if end and not 0 < other < end:
            row = printed.whole_names(printed.items(" ".join([*self._open, segment[:end]])))
            more = printed.items("{" + segment[:end])
            named = self._named(row) if more else None
            if named is not None:
                self._open = []
                self._begin(named, segment)
                return end
        if end or other or len(self._open) > MAX_LINES_WITHIN_ROW:
            self._log.lines_not_understood += 1
            self._open = []
        else:
            self._open.append(segment)
        return 0

    def _named(self, row: dict[str, Any]) -> _Row | None:
        """A row under TRL's names; None for a dict that is no row of metrics."""
        written = tuple(row)
        meaning = self._meanings.get(written)
        if meaning is None:
            if len(self._meanings) >= MAX_MEANINGS:
                self._meanings.clear()
            meaning = self._meanings[written] = _meaning(written)
        if meaning.summary:
            return _Row({}, None, training=False)
        if not meaning.shows_training:
            return None
        step = row[meaning.step] if meaning.step is not None else None
        if meaning.renamed:
            row = {name: row[key] for key, name in meaning.names}
        return _Row(row, step, meaning.training)

    def _begin(self, row: _Row, segment: str) -> None:
        if not row.metrics or self._is_repeated(row, segment):
            return
        self._finish()
        self._waiting = row
        self._bars.row_begins(training=row.training)

    def _is_repeated(self, row: _Row, segment: str) -> bool:
        """Whether the line's label says that another process prints the same row."""
        label = _RANK.match(segment)
        if label is None:
            return False
        if label[1]:
            self._rank = self._rank or label[1]
            return label[1] != self._rank
        number, metrics = label[0], tuple(row.metrics.items())
        first = self._labelled.setdefault(metrics, number)
        if len(self._labelled) > ROWS_REMEMBERED:
            self._labelled.popitem(last=False)
        return first != number

    def _finish(self) -> None:
        """Give the row that waits for a bar the best step there is."""
        if self._waiting is None:
            return
        row, self._waiting = self._waiting, None
        logged, shown = _step(row.step), self._bars.row_ends()
        if logged is not None:
            self._log.step_source = "logged"
            step = logged
        elif shown is not None:
            self._log.step_source = "progress bar"
            step = shown
        else:
            step = self._counted + row.training
        if row.training:
            self._counted = step
        row.metrics["step"] = step
        self._batch.append(row.metrics)
        if len(self._batch) >= ROWS_AT_ONCE:
            self._taker.take(self._batch)
            self._batch = []

    def _look_for_bars(self, text: str) -> None:
        if ":" in text[:MAX_LABEL_CHARS]:
            text = unlabelled(text)
        behind = 0
        if (alone := bar_alone(text)) is not None:
            if self._bars.see(*alone):
                self._finish()
            return
        if "%|" in text:
            for step, total, end in bars_in(text):
                behind = end
                if self._bars.see(step, total):
                    self._finish()
        rest = text[behind:]
        if rest and not rest.isspace():
            self._bars.before = None


def _step(value: object) -> int | None:
    """A step as a row prints it, `10` or `10/100`; None when it is no whole number."""
    step = number(value.partition("/")[0] if isinstance(value, str) else value)
    if step is None or not abs(step) < MAX_STEP or step != int(step):
        return None
    return int(step)
