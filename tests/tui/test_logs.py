"""Raw logs: how they are read, judged and sifted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.tui.conftest import RunBuilder

from dpo_telemetry.reader.source import DirectorySource
from dpo_telemetry.rundir.create import create_attempt
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_tui.logs import tail as tail_module
from dpo_tui.logs.levels import Level, Levels
from dpo_tui.logs.reader import FIRST_LOOK_BYTES, MAX_LINES, LogReader
from dpo_tui.logs.sieve import Question, Sieve, pattern_of
from dpo_tui.views.logs import LogChoice, LogsView

NewRun = Callable[..., RunBuilder]
ALL = LogChoice(all_ranks=True)

TRACEBACK = """\
Traceback (most recent call last):
  File "train.py", line 7, in <module>
    loss.backward()
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB
"""


def write(run: RunDirectory, name: str, text: str | bytes, attempt: int = 1) -> None:
    with (run.attempt(attempt).logs_dir / name).open("ab") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


def texts(view: LogsView) -> list[str]:
    return [line.text for line in view.lines]


@pytest.fixture
def run(new_run: NewRun) -> RunDirectory:
    return new_run().run


class Unhurried(LogReader):
    """Looks at the sizes of the logs each time: tests do not wait."""

    def view(self, source: DirectorySource, choice: LogChoice = LogChoice()) -> LogsView:  # type: ignore[override]  # noqa: B008
        self._listed_s = float("-inf")
        return super().view(source, choice)


def test_a_log_is_shown_as_a_terminal_would_show_it(run: RunDirectory) -> None:
    reader, source = Unhurried(), DirectorySource(run)
    write(run, "rank-00000.log", "10%|#   |\r50%|##  |\r100%|####|\r\nred \x1b[31mtext\x1b[0m\nhalf\r50%|")
    view = reader.view(source)
    assert texts(view) == ["100%|####|", "red text", "50%|"]
    assert view.unfinished == 1
    write(run, "rank-00000.log", "##|\r75%|")
    assert texts(reader.view(source))[-1] == "75%|"
    write(run, "rank-00000.log", "\ndone\n")
    view = reader.view(source)
    assert texts(view)[-2:] == ["75%|", "done"]
    assert view.unfinished == 0


def test_a_view_that_did_not_grow_is_the_same_object(run: RunDirectory) -> None:
    reader, source = Unhurried(), DirectorySource(run)
    write(run, "rank-00000.log", "one\n")
    assert reader.view(source) is reader.view(source)


def test_of_a_long_log_the_end_is_read_and_the_rest_is_told(run: RunDirectory) -> None:
    write(run, "rank-00000.log", ("x" * 99 + "\n") * 120_000 + "the end\n")
    read: list[int] = []

    class Counting(DirectorySource):
        def read_log(self, file: str, start: int, end: int) -> bytes:
            data = super().read_log(file, start, end)
            read.append(len(data))
            return data

    view = Unhurried().view(Counting(run))
    assert view.lines[-1].text == "the end"
    assert set(texts(view)[:-1]) == {"x" * 99}
    assert sum(read) < 2 * FIRST_LOOK_BYTES
    assert view.left_out_bytes + 100 * (len(view.lines) - 1) + 8 == 12_000_008


def test_at_most_ten_thousand_lines_are_kept_and_lines_keep_their_numbers(run: RunDirectory) -> None:
    reader, source = Unhurried(), DirectorySource(run)
    write(run, "rank-00000.log", "".join(f"{number}\n" for number in range(MAX_LINES)))
    assert reader.view(source).first == 0
    write(run, "rank-00000.log", "".join(f"{number}\n" for number in range(MAX_LINES, MAX_LINES + 500)))
    view = reader.view(source)
    assert len(view.lines) == MAX_LINES
    assert view.first == 500
    assert all(line.text == str(number) for number, line in enumerate(view.lines, view.first))
    assert view.left_out_bytes == len("".join(f"{number}\n" for number in range(500)))


def test_an_endless_line_and_binary_bytes_stay_bounded_and_plain(run: RunDirectory) -> None:
    reader, source = Unhurried(), DirectorySource(run)
    write(run, "rank-00000.log", b"start ")
    reader.view(source)
    write(run, "rank-00000.log", b"y" * 3_000_000)
    view = reader.view(source)
    assert [line.text[:8] for line in view.lines] == ["start yy"]
    for _ in range(12):
        write(run, "rank-00000.log", bytes(range(256)).replace(b"\n", b"").replace(b"\r", b"") * 4096)
        view = reader.view(source)
    (follower,) = reader._tails.values()
    assert len(follower._rest) <= tail_module.LINE_BYTES
    write(run, "rank-00000.log", b"\n\x1b]52;c;AAAA\x07\x00\x9b31mafter\n")
    view = reader.view(source)
    assert "after" in view.lines[-1].text
    assert all(line.text.isprintable() and len(line.text) <= 2000 for line in view.lines)


def test_a_log_that_grows_faster_than_one_reads_is_passed_over_and_that_is_told(run: RunDirectory) -> None:
    reader, source = Unhurried(first_look_bytes=1000), DirectorySource(run)
    write(run, "rank-00000.log", "first\n")
    reader.view(source)
    write(run, "rank-00000.log", "0123456789abcde\n" * 10_000)
    found = texts(reader.view(source))
    assert found[0] == "first"
    assert found[1] == "(155 KiB passed over)"
    assert found[-1] == "0123456789abcde"


def test_the_newest_attempt_is_followed_and_the_end_of_the_last_one_stays(run: RunDirectory) -> None:
    reader, source = Unhurried(), DirectorySource(run)
    write(run, "rank-00000.log", "it breaks\n")
    reader.view(source)
    create_attempt(run, "", b"{}")
    write(run, "rank-00000.log", "again\n", attempt=2)
    assert texts(reader.view(source)) == ["it breaks", "(attempt 2)", "again"]
    assert texts(reader.view(source, LogChoice("rank-00000.log", 1))) == ["it breaks"]


def test_all_ranks_come_together_by_the_time_that_loggers_write(run: RunDirectory) -> None:
    reader, source = Unhurried(), DirectorySource(run)
    write(run, "rank-00000.log", "[2026-11-24 08:00:01,100] a\n[2026-11-24 08:00:05,000] d\n")
    write(run, "rank-00001.log", "[2026-11-24 08:00:02,000] b\nno time\n")
    write(run, "launcher-node1.log", "began\n")
    view = reader.view(source, ALL)
    shown = [(line.source, line.text.rpartition("] ")[2]) for line in view.lines]
    assert shown == [
        ("launcher node1", "began"),
        ("rank 0", "a"),
        ("rank 1", "b"),
        ("rank 1", "no time"),
        ("rank 0", "d"),
    ]
    write(run, "rank-00001.log", "newest\n")
    assert [(line.source, line.text) for line in reader.view(source, ALL).lines[-1:]] == [
        ("rank 1", "newest")
    ]


def test_logs_of_a_thousand_ranks_are_read_only_where_they_grew(run: RunDirectory) -> None:
    for rank in range(1000):
        write(run, f"rank-{rank:05d}.log", f"rank {rank} is here\n")
    read: list[str] = []

    class Counting(DirectorySource):
        def read_log(self, file: str, start: int, end: int) -> bytes:
            read.append(file)
            return super().read_log(file, start, end)

    reader, source = Unhurried(), Counting(run)
    assert len(reader.view(source, ALL).lines) == 1000
    read.clear()
    write(run, "rank-00777.log", "more\n")
    assert reader.view(source, ALL).lines[-1].source == "rank 777"
    assert set(read) == {"attempts/001/logs/rank-00777.log"}


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("[2026-11-24 08:10:11,812] [WARNING] [real_accelerator.py:213] Setting accelerator", Level.WARNING),
        ("INFO:root:loaded", Level.INFO),
        ("2026-11-24 DEBUG x", Level.DEBUG),
        ("E1124 08:10:11.812345 140 elastic/multiprocessing/api.py:874] failed (exitcode: 1)", Level.ERROR),
        ("[rank3]:[W1124 08:10:11.812 ProcessGroupNCCL.cpp:1250] Warning", Level.WARNING),
        ("/x/warnings.py:9: UserWarning: no", Level.WARNING),
        ("torch.OutOfMemoryError: CUDA out of memory", Level.ERROR),
        ("[rank0]: ValueError: no", Level.ERROR),
        ("{'loss': 0.69, 'errors': 0}", Level.NONE),
        ("an error is information", Level.NONE),
    ],
)
def test_the_level_of_a_line_is_what_its_logger_says(line: str, level: Level) -> None:
    assert Levels().of(line) is level


def test_a_traceback_is_an_error_to_its_last_line() -> None:
    levels = Levels()
    lines = ["step 1", *TRACEBACK.splitlines(), "step 2"]
    assert [levels.of(line) for line in lines] == [Level.NONE, *[Level.ERROR] * 4, Level.NONE]


def test_a_search_is_a_regular_expression_or_the_text_itself() -> None:
    assert pattern_of("") is None
    regex, text, capital = pattern_of(r"step \d+"), pattern_of("loss ("), pattern_of("NaN")
    assert regex is not None
    assert regex.search("STEP 12")
    assert text is not None
    assert text.search("the loss (train)")
    assert capital is not None
    assert capital.search("NaN")
    assert not capital.search("nan")


def test_a_line_is_sifted_once_however_the_log_grows(run: RunDirectory) -> None:
    reader, source, sieve = Unhurried(max_lines=100), DirectorySource(run), Sieve()
    question = Question(pattern=pattern_of("7$"), only_matching=True)
    for start in range(0, 300, 30):
        lines = "".join(f"line {number}\n" for number in range(start, start + 30))
        write(run, "rank-00000.log", lines + "half 7")
        sieve.update(reader.view(source), question)
        write(run, "rank-00000.log", " and more\n")
    view = reader.view(source)
    sieve.update(view, question)
    fresh = Sieve()
    fresh.update(view, question)
    assert sieve.numbers == fresh.numbers == sieve.matches
    assert [view.lines[n - view.first].text for n in sieve.numbers][-1] == "line 297"


def test_a_progress_bar_that_was_never_ended_is_shown_when_its_log_is_opened_late(run: RunDirectory) -> None:
    reader, source = Unhurried(first_look_bytes=1000), DirectorySource(run)
    write(run, "rank-00000.log", "".join(f"\r{percent / 100:.2f}%|####" for percent in range(10_000)))
    assert texts(reader.view(source)) == ["99.99%|####"]
    write(run, "rank-00000.log", "\r100.00%|####\nsaved\n")
    assert texts(reader.view(source)) == ["100.00%|####", "saved"]
