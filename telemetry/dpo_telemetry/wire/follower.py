"""What a client has of each file and what it still needs; no sockets in here.

A piece that does not start where the file stands is never handed out: the part in between is
read first. The piece itself is not kept for that, it comes with the read, so a client that
falls behind needs no more memory than one that keeps up.
"""

from __future__ import annotations

from collections.abc import Mapping

from dpo_telemetry.reader.source import Chunk
from dpo_telemetry.wire.messages import MAX_READ_BYTES, Delta, ReadReply, ReadRequest


class Follower:
    """Turns deltas, snapshots and reads in any order into chunks in the order of the file."""

    def __init__(self) -> None:
        self.positions: dict[str, int] = {}
        """Bytes of each file handed out so far."""
        self._known: dict[str, int] = {}
        self._reading: set[str] = set()

    def skip_to(self, offsets: Mapping[str, int]) -> None:
        """Go on from there: what lies before was read by other means."""
        for file, offset in offsets.items():
            self.positions[file] = max(offset, self.positions.get(file, 0))

    def behind(self) -> bool:
        """Whether bytes are known to exist that were not handed out."""
        return any(size > self.positions.get(file, 0) for file, size in self._known.items())

    def agrees(self, total_bytes: int) -> bool:
        """Whether nothing was missed, by the sum of sizes in a heartbeat."""
        known = sum(max(size, self.positions.get(file, 0)) for file, size in self._known.items())
        return known >= total_bytes

    def snapshot(self, files: Mapping[str, int]) -> None:
        """Take the keeper's list of files and sizes."""
        for file, size in files.items():
            self._grown(file, size)

    def delta(self, delta: Delta) -> Chunk | None:
        """The new part of a published piece; None when it is old, or starts after a gap."""
        return self._take(delta.file, delta.offset, delta.data)

    def read(self, reply: ReadReply) -> Chunk | None:
        """The new part of what was read; an empty reply ends the wait for those bytes."""
        self._reading.discard(reply.file)
        if not reply.data:
            self._known[reply.file] = self.positions.get(reply.file, 0)
        return self._take(reply.file, reply.start, reply.data)

    def unreadable(self, file: str) -> None:
        """The keeper does not have these bytes, or did not answer in time."""
        self._reading.discard(file)

    def wanted(self, limit: int) -> list[ReadRequest]:
        """The next reads to ask for, at most one a file and `limit` under way in all."""
        requests = []
        for file, size in self._known.items():
            if len(self._reading) >= limit:
                break
            start = self.positions.get(file, 0)
            if size > start and file not in self._reading:
                self._reading.add(file)
                requests.append(ReadRequest(file=file, start=start, end=min(size, start + MAX_READ_BYTES)))
        return requests

    def _take(self, file: str, offset: int, data: bytes) -> Chunk | None:
        end = offset + len(data)
        self._grown(file, end)
        position = self.positions.get(file, 0)
        if offset > position or end <= position:
            return None
        self.positions[file] = end
        return Chunk(file, position, data[position - offset :])

    def _grown(self, file: str, size: int) -> None:
        self._known[file] = max(size, self._known.get(file, 0))
