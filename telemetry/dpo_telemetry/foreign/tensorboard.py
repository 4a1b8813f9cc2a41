"""TensorBoard's event files: scalars, and tensors of one number.

Events of one metric differ only in time, step and value: one of them is taken apart, and the
others are read at the places that it shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dpo_telemetry.foreign.event import Event, Span, parse, varint
from dpo_telemetry.foreign.log import ForeignLog
from dpo_telemetry.foreign.names import metric_name, shows_training
from dpo_telemetry.foreign.records import (
    MAX_PAYLOAD_BYTES,
    Bytes,
    Places,
    RecordReader,
    Records,
    checksums,
    is_header,
    payloads,
)
from dpo_telemetry.foreign.rows import MAX_STEP, RowTaker
from dpo_telemetry.foreign.source import Source, open_source
from dpo_telemetry.foreign.surroundings import Surroundings
from dpo_telemetry.series.columns import Floats, Ints

FORMAT = "tensorboard"
FILE_PATTERN = "*tfevents*"
MAX_TAGS = 10_000
MAX_FORMS = 32
"""Forms of events of one length in a block; those of more are taken apart one by one."""
BLOCK_BYTES = 1 << 22
MAX_WAITING = 1 << 17
"""So many values at one step wait for what else comes at that step."""
MAX_CELLS = 1 << 22
_ARGUMENTS = b"args/text_summary"
"""Where the Trainer's callback puts its arguments."""


@dataclass(frozen=True)
class _Values:
    """Numbers in the order of the file: three arrays of the same length, shape (n,)."""

    steps: Ints
    tags: Ints
    values: Floats

    def part(self, chosen: slice | npt.NDArray[np.bool_]) -> _Values:
        return _Values(self.steps[chosen], self.tags[chosen], self.values[chosen])

    def then(self, other: _Values) -> _Values:
        return _Values(
            np.concatenate([self.steps, other.steps]),
            np.concatenate([self.tags, other.tags]),
            np.concatenate([self.values, other.values]),
        )


_NOTHING = _Values(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


def matches(head: bytes) -> bool:
    """Whether a file begins with a record."""
    return is_header(head)


def files_in_folder(folder: Path) -> list[Path]:
    """The event files of a folder, in the order in which they were begun."""
    return sorted((path for path in folder.glob(FILE_PATTERN) if path.is_file()), key=lambda path: path.name)


def read(sources: Iterator[Source]) -> ForeignLog:
    """The log of one or several files, which follow each other."""
    log = ForeignLog(FORMAT)
    surroundings = Surroundings()
    rows = _Rows(RowTaker(log, logged=True))
    for source in sources:
        reader, events = RecordReader(), _Events(rows.tags, log, surroundings)
        rows.file_begins()
        for records in reader.feed(_blocks(source.blocks())):
            rows.take(events.values(records))
        log.lines_not_understood += reader.damaged or reader.torn
    rows.finish()
    surroundings.tell(log)
    return log


def open_files(paths: Sequence[Path]) -> Iterator[Source]:
    """Event files one after the other."""
    for path in paths:
        with open_source(path) as source:
            yield source


def _blocks(blocks: Iterator[bytes]) -> Iterator[bytes]:
    waiting, size = [], 0
    for block in blocks:
        waiting.append(block)
        size += len(block)
        if size >= BLOCK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


class _Events:
    """Reads the events of one file."""

    def __init__(self, tags: dict[str, int], log: ForeignLog, surroundings: Surroundings) -> None:
        self._tags, self._log, self._surroundings = tags, log, surroundings

    def values(self, records: Records) -> _Values:
        """The numbers of a block of records."""
        found: list[tuple[Places, _Values]] = []
        for length in np.unique(records.lengths).tolist():
            places = np.flatnonzero(records.lengths == length)
            if length <= MAX_PAYLOAD_BYTES:
                found += self._of_one_length(records, places, length)
            else:
                for place in places:
                    start = int(records.starts[place])
                    data = records.data[start : start + length].tobytes()
                    if _ARGUMENTS in data[:MAX_PAYLOAD_BYTES]:
                        self._one_by_one(data)
        if not found:
            return _NOTHING
        order = np.argsort(np.concatenate([places for places, _ in found]), kind="stable")
        parts = [values for _, values in found]
        return _Values(
            np.concatenate([part.steps for part in parts])[order],
            np.concatenate([part.tags for part in parts])[order],
            np.concatenate([part.values for part in parts])[order],
        )

    def _of_one_length(
        self, records: Records, places: Places, length: int
    ) -> Iterator[tuple[Places, _Values]]:
        texts, sums = payloads(records, records.starts[places], length)
        for _ in range(MAX_FORMS):
            if not len(places):
                return
            event = _parsed(texts[0].tobytes())
            if event is None or not event.is_one_scalar:
                alike, varying = np.arange(len(places)) < 1, np.empty(0, np.int64)
            else:
                varying = np.array([at for span in _varying(event) for at in range(*span)], np.int64)
                alike = _alike(texts, event, varying)
            good = checksums(texts[alike], varying) == sums[alike]
            self._log.lines_not_understood += int((~good).sum())
            chosen, text = places[alike][good], texts[alike][good]
            if event is not None and event.is_one_scalar:
                if (values := self._like(event, text)) is not None:
                    kept = self._in_range(values.steps)
                    yield chosen[kept], values.part(kept)
            elif len(chosen):
                values = self._one_by_one(text[0].tobytes())
                yield np.repeat(chosen, len(values.steps)), values
            places, texts, sums = places[~alike], texts[~alike], sums[~alike]
        for place, text in zip(places, texts, strict=True):
            values = self._one_by_one(text.tobytes())
            yield np.repeat(place, len(values.steps)), values

    def _like(self, event: Event, texts: Bytes) -> _Values | None:
        """Events that differ from `event` in time, step and value only."""
        scalar = event.scalars[0]
        tag = self._tag(scalar.tag, len(texts))
        if tag is None:
            return None
        steps = np.zeros(len(texts), np.int64)
        for shift, at in enumerate(range(*(event.step or (0, 0)))):
            steps |= (texts[:, at].astype(np.int64) & 0x7F) << np.int64(7 * shift)
        values = np.ascontiguousarray(texts[:, slice(*scalar.span)]).view(scalar.dtype).ravel()
        # A NaN may be a signalling one, of which numpy would warn the user.
        with np.errstate(invalid="ignore"):
            return _Values(steps, np.full(len(texts), tag), values.astype(np.float64))

    def _one_by_one(self, data: bytes) -> _Values:
        event = _parsed(data)
        if event is None:
            self._log.lines_not_understood += 1
            return _NOTHING
        for name, text in event.texts:
            if name == _ARGUMENTS.decode():
                self._surroundings.arguments_text(text)
        step = varint(data, *event.step) if event.step else 0
        tags, values = [], []
        for scalar in event.scalars:
            if (tag := self._tag(scalar.tag, 1)) is not None:
                tags.append(tag)
                values.append(float(np.frombuffer(data[slice(*scalar.span)], scalar.dtype)[0]))
        steps = np.full(len(tags), step, np.int64)
        return _Values(steps, np.array(tags, np.int64), np.array(values)).part(self._in_range(steps))

    def _in_range(self, steps: Ints) -> npt.NDArray[np.bool_]:
        """Which steps training can reach; the others are counted as not understood."""
        kept: npt.NDArray[np.bool_] = (steps > -MAX_STEP) & (steps < MAX_STEP)
        self._log.lines_not_understood += int((~kept).sum())
        return kept

    def _tag(self, name: str, uses: int) -> int | None:
        if name not in self._tags and len(self._tags) >= MAX_TAGS:
            self._log.lines_not_understood += uses
            return None
        return self._tags.setdefault(name, len(self._tags))


def _parsed(data: bytes) -> Event | None:
    try:
        return parse(data)
    except ValueError:
        return None


def _varying(event: Event) -> list[Span]:
    return [span for span in (event.time, event.step, event.scalars[0].span) if span is not None]


def _alike(texts: Bytes, event: Event, varying: Places) -> npt.NDArray[np.bool_]:
    """Which events are like the first, for which `event` says what may differ."""
    fixed = np.ones(texts.shape[1], np.bool_)
    fixed[varying] = False
    alike = (texts[:, fixed] == texts[0, fixed]).all(axis=1)
    if event.step is not None:
        # The bytes of a step say themselves where it ends.
        start, end = event.step
        alike &= (texts[:, start : end - 1] >= 0x80).all(axis=1) & (texts[:, end - 1] < 0x80)
    same: npt.NDArray[np.bool_] = alike
    return same


class _Rows:
    """Joins numbers to rows: what comes at one step in a row of its own each time a name repeats."""

    def __init__(self, taker: RowTaker) -> None:
        self.tags: dict[str, int] = {}
        self._taker = taker
        self._waiting = _NOTHING
        self._trained = False
        self._beside: bool | None = None

    def file_begins(self) -> None:
        """What comes next is from another file: the run resumed, or another writer of figures beside training's."""
        self._beside = None

    def take(self, values: _Values) -> None:
        """The next numbers; those of the last step wait for others of that step."""
        if self._is_beside(values):
            return
        values = self._waiting.then(values)
        ends = np.flatnonzero(np.diff(values.steps)) + 1
        last = int(ends[-1]) if len(ends) else 0
        if len(values.steps) - last > MAX_WAITING:
            last = len(values.steps)
        self._waiting = values.part(slice(last, None))
        self._append(values.part(slice(last)))

    def _is_beside(self, values: _Values) -> bool:
        """Whether the file's first numbers are none of training, of which there are some already.

        Taken for the run begun again, its rows would replace those of training at the same steps.
        """
        if self._beside is None and len(values.steps):
            names = list(self.tags)
            written = map(metric_name, (names[tag] for tag in np.unique(values.tags)))
            training = any(name is not None and shows_training(name) for name in written)
            self._beside = self._trained and not training
            self._trained |= training
        return bool(self._beside)

    def finish(self) -> None:
        """There are no more numbers."""
        self._append(self._waiting)
        self._waiting = _NOTHING

    def _append(self, values: _Values) -> None:
        n = len(values.steps)
        at_once = max(1, MAX_CELLS // max(1, len(np.unique(values.tags))))
        start = 0
        while start < n:
            end = start + at_once
            while end < n and values.steps[end] == values.steps[end - 1] and end - start < MAX_WAITING:
                end += 1
            self._append_rows(values.part(slice(start, end)))
            start = end

    def _append_rows(self, values: _Values) -> None:
        n = len(values.steps)
        segments = np.cumsum(np.diff(values.steps, prepend=values.steps[0]) != 0)
        order = np.lexsort((np.arange(n), values.tags, segments))
        first = np.append(True, (np.diff(segments[order]) != 0) | (np.diff(values.tags[order]) != 0))
        runs = np.flatnonzero(first)
        occurrence = np.empty(n, np.int64)
        occurrence[order] = np.arange(n) - np.repeat(runs, np.diff(np.append(runs, n)))
        rows, row_of = np.unique(segments * (occurrence.max() + 1) + occurrence, return_inverse=True)
        steps = np.empty(len(rows), np.int64)
        steps[row_of] = values.steps
        names = list(self.tags)
        columns = []
        by_tag = np.argsort(values.tags, kind="stable")
        of_tags = np.split(by_tag, np.flatnonzero(np.diff(values.tags[by_tag])) + 1)
        # Tags are numbered by the lengths of their events; people expect the order of the file.
        for places in sorted(of_tags, key=lambda places: int(places[0])):
            column, present = np.full(len(rows), np.nan), np.zeros(len(rows), np.bool_)
            column[row_of[places]], present[row_of[places]] = values.values[places], True
            columns.append((names[int(values.tags[places[0]])], column, present))
        self._taker.take_arrays(steps, columns)
