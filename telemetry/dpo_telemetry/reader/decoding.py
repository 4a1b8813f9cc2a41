"""Processes that decode stretches of event files, each in its turn: one process decodes one core's worth.

`python -m dpo_telemetry.reader.decoding` reads a request a line and answers each with a block.
The standard library's pool of processes will not start in a terminal program that has taken over
stderr, and would move the arrays as pickles.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from dpo_telemetry.reader import blocks
from dpo_telemetry.reader.blocks import Block
from dpo_telemetry.reader.lines import separate
from dpo_telemetry.reader.source import Prepared

LENGTH_BYTES = 8
PIPE_BYTES = 1 << 20


class Stretch(NamedTuple):
    """Whole lines of an event file of a run, from `start` up to `end`."""

    run: str
    file: str
    start: int
    end: int


def prepare(stretch: Stretch) -> Prepared:
    """Decode a stretch.

    Raises:
        OSError: the file cannot be read.
    """
    with (Path(stretch.run) / stretch.file).open("rb") as file:
        file.seek(stretch.start)
        data = file.read(stretch.end - stretch.start)
    steps, lines = separate(data)
    return Prepared(stretch.file, stretch.start, lines, len(data), steps)


class Decoders:
    """Some processes that decode; replies are asked for in the order of the requests."""

    def __init__(self, count: int) -> None:
        """
        Raises:
            OSError: a process cannot be started.
        """
        self._processes: list[subprocess.Popen[bytes]] = []
        self._asked = self._answered = 0
        command = [sys.executable, "-m", "dpo_telemetry.reader.decoding"]
        try:
            for _ in range(count):
                self._processes.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL,
                        pipesize=PIPE_BYTES,
                    )
                )
        except OSError:
            self.close()
            raise

    def ask(self, stretch: Stretch) -> None:
        """Have a stretch decoded.

        Raises:
            OSError: the process is gone.
        """
        stdin = self._processes[self._asked % len(self._processes)].stdin
        assert stdin is not None
        self._asked += 1
        stdin.write(msgspec.json.encode(stretch) + b"\n")
        stdin.flush()

    def answer(self) -> Prepared:
        """The stretch that was asked for first and not handed out yet.

        Raises:
            OSError, ValueError, msgspec.DecodeError: the process is gone, or could not read it.
        """
        stdout = self._processes[self._answered % len(self._processes)].stdout
        assert stdout is not None
        self._answered += 1
        size = int.from_bytes(_exactly(stdout, LENGTH_BYTES), "little")
        block = msgspec.json.decode(_exactly(stdout, size), type=Block)
        (chunk,) = blocks.unpack([block], _exactly(stdout, block.arrays_bytes), 0)
        return chunk

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):  # a request that nobody will read
                        stream.close()
            process.wait()


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise OSError("a decoding process ended early")
    return data


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer requests until there are no more."""
    for line in requests:
        chunk = prepare(msgspec.json.decode(line, type=Stretch))
        text = msgspec.json.encode(blocks.describe(chunk))
        replies.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
        replies.writelines(blocks.arrays(chunk))
        replies.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
