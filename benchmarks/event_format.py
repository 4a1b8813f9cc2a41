"""What a step's event costs in each format: encoding, bytes, decoding.

    python benchmarks/event_format.py [--json] [--quick] [--record]

Each format writes the same step of ten metrics, made anew with its clocks as a training step
makes it. Peers that are not installed are left out and named.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sqlite3
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import harness
from dpo_telemetry import events

EVENTS, QUICK_EVENTS = 50_000, 5_000
ROUNDS = 5
GOAL_ENCODE_US = 6.8
"""A third of what trackio needs for a logged step: encoding must not use that up."""
GOAL_DECODE_PER_S = 150_000.0
COMMIT_EVENTS = 100
"""Events in one transaction of SQLite; a commit each would cost it far more."""

METRICS: dict[str, events.Number] = {
    "loss": 0.6914, "grad_norm": 3.3615094645372428, "learning_rate": 8.888888888888888e-06,
    "rewards/chosen": 0.012345678, "rewards/rejected": -0.0456789, "rewards/accuracies": 0.625,
    "rewards/margins": 0.058024578, "logps/chosen": -536.2734375, "logps/rejected": -532.4921875,
    "logits/chosen": 0.1015625,
}  # fmt: skip
PEERS = ("orjson", "msgpack", "protobuf")


@dataclass(frozen=True)
class Format:
    """One way to write and read steps."""

    encode: Callable[[int], bytes]
    """The bytes of a step, with whatever separates it from the next."""
    decode: Callable[[bytes], int]
    """Reads a whole file; returns how many events it held."""


def row(step: int) -> dict[str, Any]:
    """The step as libraries without a schema take it."""
    return {"k": "step", "v": 1, "t": time.time(), "m": time.monotonic(), "step": step, "metrics": METRICS}


def our_format() -> Format:
    """Typed JSON lines."""

    def encode(step: int) -> bytes:
        return events.encode(events.Step(**events.stamp(), step=step, metrics=METRICS))

    return Format(encode, lambda data: sum(events.decode(line) is not None for line in data.splitlines()))


def standard_json() -> Format:
    """Python's own JSON."""

    def encode(step: int) -> bytes:
        return json.dumps(row(step), separators=(",", ":")).encode() + b"\n"

    return Format(encode, lambda data: sum(bool(json.loads(line)) for line in data.splitlines()))


def orjson_lines() -> Format:
    """JSON lines by orjson."""
    orjson = importlib.import_module("orjson")

    def encode(step: int) -> bytes:
        line: bytes = orjson.dumps(row(step), option=orjson.OPT_APPEND_NEWLINE)
        return line

    return Format(encode, lambda data: sum(bool(orjson.loads(line)) for line in data.splitlines()))


def framed(payload: bytes) -> bytes:
    """A binary record behind its length."""
    return struct.pack("<I", len(payload)) + payload


def frames(data: bytes) -> Iterator[memoryview]:
    """Records of a framed file."""
    view, at = memoryview(data), 0
    while at < len(view):
        (size,) = struct.unpack_from("<I", view, at)
        yield view[at + 4 : at + 4 + size]
        at += 4 + size


def msgspec_msgpack() -> Format:
    """The same typed events as MessagePack, framed."""
    encoder, decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(events.AnyEvent)

    def encode(step: int) -> bytes:
        return framed(encoder.encode(events.Step(**events.stamp(), step=step, metrics=METRICS)))

    return Format(encode, lambda data: sum(bool(decoder.decode(frame)) for frame in frames(data)))


def msgpack_stream() -> Format:
    """MessagePack by its own library, which needs no frames."""
    msgpack = importlib.import_module("msgpack")

    def decode(data: bytes) -> int:
        unpacker = msgpack.Unpacker()
        unpacker.feed(data)
        return sum(1 for _ in unpacker)

    return Format(lambda step: bytes(msgpack.packb(row(step))), decode)


def protobuf_framed() -> Format:
    """A protobuf message of the same fields, framed."""
    message = _protobuf_message()

    def encode(step: int) -> bytes:
        made = message(k="step", v=1, t=time.time(), m=time.monotonic(), step=step, metrics=METRICS)
        return framed(made.SerializeToString())

    return Format(encode, lambda data: sum(message.FromString(bytes(frame)).v for frame in frames(data)))


def _protobuf_message() -> Any:
    pb2 = importlib.import_module("google.protobuf.descriptor_pb2")
    pool = importlib.import_module("google.protobuf.descriptor_pool").DescriptorPool()
    factory = importlib.import_module("google.protobuf.message_factory")
    kinds = pb2.FieldDescriptorProto
    file = pb2.FileDescriptorProto(name="step.proto", package="bench", syntax="proto3")
    step = file.message_type.add(name="Step")
    fields = [("k", kinds.TYPE_STRING), ("v", kinds.TYPE_INT32), ("t", kinds.TYPE_DOUBLE),
              ("m", kinds.TYPE_DOUBLE), ("step", kinds.TYPE_INT64)]  # fmt: skip
    for number, (name, kind) in enumerate(fields, 1):
        step.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    entry = step.nested_type.add(name="MetricsEntry", options=pb2.MessageOptions(map_entry=True))
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=kinds.TYPE_DOUBLE, label=kinds.LABEL_OPTIONAL)
    step.field.add(
        name="metrics", number=6, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_REPEATED,
        type_name=".bench.Step.MetricsEntry",
    )  # fmt: skip
    pool.Add(file)
    return factory.GetMessageClass(pool.FindMessageTypeByName("bench.Step"))


def formats() -> dict[str, Format]:
    """Every format that can be measured here; ours is the first."""
    made = {"msgspec JSON": our_format(), "json": standard_json(), "msgspec MessagePack": msgspec_msgpack()}
    optional = {
        "orjson": ("orjson", orjson_lines),
        "msgpack": ("msgpack", msgpack_stream),
        "protobuf": ("google.protobuf", protobuf_framed),
    }
    for name, (module, make) in optional.items():
        if _installed(module):
            made[name] = make()
    return made


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def costs(made: dict[str, Format], count: int) -> dict[str, tuple[float, float, float]]:
    """Encode µs, bytes, and decoded events/s by format: best of some rounds, formats taking turns."""
    encode_s = dict.fromkeys(made, float("inf"))
    decode_s = dict.fromkeys(made, float("inf"))
    files: dict[str, bytes] = {}
    for _ in range(ROUNDS):
        for name, format_ in made.items():
            began = time.perf_counter()
            parts = [format_.encode(step) for step in range(count)]
            encode_s[name] = min(encode_s[name], time.perf_counter() - began)
            files[name] = b"".join(parts)
            began = time.perf_counter()
            assert format_.decode(files[name]) == count
            decode_s[name] = min(decode_s[name], time.perf_counter() - began)
    return {
        name: (encode_s[name] / count * 1e6, len(files[name]) / count, count / decode_s[name])
        for name in made
    }


def sqlite_costs(count: int) -> tuple[float, float, float]:
    """The same of SQLite in WAL mode, with a column a metric; writing is part of its encoding."""
    columns = ["k", "v", "t", "m", "step", *(f'"{name}"' for name in METRICS)]
    insert = f"INSERT INTO events VALUES ({', '.join('?' * len(columns))})"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute(f"CREATE TABLE events ({', '.join(columns)})")
            began = time.perf_counter()
            for start in range(0, count, COMMIT_EVENTS):
                database.execute("BEGIN")
                for step in range(start, start + COMMIT_EVENTS):
                    fixed = ("step", 1, time.time(), time.monotonic(), step)
                    database.execute(insert, (*fixed, *METRICS.values()))
                database.execute("COMMIT")
            encode_s = time.perf_counter() - began
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            size = path.stat().st_size
            began = time.perf_counter()
            assert len(database.execute("SELECT * FROM events").fetchall()) == count
            decode_s = time.perf_counter() - began
    return encode_s / count * 1e6, size / count, count / decode_s


def measure(quick: bool) -> dict[str, harness.Figure]:
    """Three figures of ours, each beside all peers."""
    count = QUICK_EVENTS if quick else EVENTS
    found = costs(formats(), count)
    found["SQLite"] = sqlite_costs(count)
    ours = found.pop("msgspec JSON")
    names = (
        ("encode_us", GOAL_ENCODE_US, 2),
        ("bytes_an_event", None, 1),
        ("decoded_events_per_s", GOAL_DECODE_PER_S, 0),
    )
    return {
        name: {
            "value": round(ours[at], digits),
            "goal": goal,
            "peer": {peer: round(values[at], digits) for peer, values in found.items()},
        }
        for at, (name, goal, digits) in enumerate(names)
    }


if __name__ == "__main__":
    harness.main("event_format", measure, ("msgspec", *PEERS))
