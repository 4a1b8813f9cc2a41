"""One run as the programs of the field write it down."""

from __future__ import annotations

import csv
import gzip
import io
import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
NAN = float("nan")


def history(steps: int = 30, *, restart_at: int | None = None) -> list[dict[str, float]]:
    """A DPO run as the Trainer's `log_history` holds it: an evaluation every ten steps, a closing summary.

    With `restart_at` the run goes back to that step once it is over, and runs to the end again.
    """
    numbers = [*range(1, steps + 1), *range(restart_at or steps + 1, steps + 1)]
    rows: list[dict[str, float]] = []
    for n in numbers:
        shown = {"epoch": n / 8, "step": n}
        margin = n / 16
        rows.append(
            {
                "loss": 0.6875 - n / 128, "grad_norm": NAN if n == 7 else 2.5 + n % 3, "learning_rate": n / 2**20,
                "rewards/chosen": margin / 2, "rewards/rejected": -margin / 2, "rewards/margins": margin,
                "rewards/accuracies": 0.75, "logps/chosen": -200.0 - n % 5, "logps/rejected": -210.0 - n % 7, **shown,
            }
        )  # fmt: skip
        if n % 10 == 0:
            rows.append(
                {"eval_loss": 0.675 - n / 128, "eval_rewards/margins": margin, "eval_runtime": 3.5, **shown}
            )
    last = {"train_runtime": 99.0, "train_samples_per_second": 3.0, "train_steps_per_second": 1.0}
    return [*rows, {**last, "total_flos": 0.0, "train_loss": 0.5, "epoch": steps / 8, "step": steps}]


def trainer_state(rows: Sequence[Row]) -> bytes:
    state = {
        "best_metric": None, "epoch": 3.0, "global_step": rows[-1]["step"], "is_hyper_param_search": False,
        "log_history": rows, "stateful_callbacks": {"TrainerControl": {"args": {"should_save": True}}},
    }  # fmt: skip
    return json.dumps(state, indent=2).encode()


def compact_state(rows: Sequence[Row]) -> bytes:
    return json.dumps({"log_history": rows}, separators=(",", ":")).encode()


def json_list(rows: Sequence[Row]) -> bytes:
    return json.dumps(rows).encode()


def list_within(rows: Sequence[Row]) -> bytes:
    run = {"name": "[{", "tags": [{"a": 1}], "results": {"logs": rows, "more": [{"loss": 99.0, "step": 1}]}}
    return json.dumps({"run": run, "version": 2}, indent=1).encode()


def json_lines(rows: Iterable[Row]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def wandb_lines(rows: Iterable[Row]) -> bytes:
    """W&B's history: names in groups, and a count of its own that is no step of training."""
    return json_lines(
        {**grouped(row), "_step": n, "_runtime": 3.5, "_timestamp": 1.7e9} for n, row in enumerate(rows)
    )


def grouped(row: Row) -> dict[str, Any]:
    """Names as the Trainer gives them to W&B and TensorBoard."""
    named = {}
    for name, value in row.items():
        named[f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}"] = value
    return {("train/global_step" if name == "train/step" else name): value for name, value in named.items()}


def table(rows: Sequence[Row], delimiter: str = ",") -> bytes:
    """CSV as pandas writes a list of rows: a column for each name, empty cells."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def bar(step: int, total: int, description: str = "") -> str:
    return f"\r{description}{100 * step // total:3d}%|{'█' * 3:<10}| {step}/{total} [00:06<00:26,  3.37s/it]"


def printed(rows: Sequence[Row], spell: Callable[[float], str] = repr) -> bytes:
    """Output of the Trainer: its bar before and behind each row, no step in the row."""
    total = max(int(row["step"]) for row in rows)
    parts = ["Loading checkpoint shards: 100%|██████████| 4/4 [00:01<00:00,  3.4it/s]\n", bar(0, total)]
    for row in rows:
        text = ", ".join(f"'{name}': {spell(value)}" for name, value in row.items() if name != "step")
        step = int(row["step"])
        parts += [bar(step - 1, total), f"{bar(step, total)}\r{' ' * 60}\r{{{text}}}\n", bar(step, total)]
    return "".join(parts).encode()


def event_file(rows: Iterable[Row], encode: Callable[[str, float], bytes] | None = None) -> bytes:
    """TensorBoard's file as the Trainer's callback writes it: an event a number."""
    encode = encode or simple_value
    events = [record(event(0, bytes([0x1A, 13]) + b"brain.Event:2"))]
    for row in rows:
        step = int(row["step"])
        for name, value in grouped({name: value for name, value in row.items() if name != "step"}).items():
            events.append(record(event(step, field(5, field(1, encode(name, value))))))
    return b"".join(events)


def simple_value(tag: str, value: float) -> bytes:
    return field(1, tag.encode()) + b"\x15" + struct.pack("<f", value)


def tensor_floats(tag: str, value: float) -> bytes:
    metadata = field(9, field(1, field(1, b"scalars")))
    return (
        field(1, tag.encode())
        + metadata
        + field(8, b"\x08\x01" + field(2, b"") + field(5, struct.pack("<f", value)))
    )


def tensor_content(tag: str, value: float) -> bytes:
    return field(1, tag.encode()) + field(8, b"\x08\x02" + field(2, b"") + field(4, struct.pack("<d", value)))


def event(step: int, content: bytes) -> bytes:
    return b"\x09" + struct.pack("<d", 1.79e9 + step) + (b"\x10" + varint(step) if step else b"") + content


def field(number: int, content: bytes) -> bytes:
    """A field of protobuf with a length."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    data = b""
    while value > 0x7F:
        data, value = data + bytes([value & 0x7F | 0x80]), value >> 7
    return data + bytes([value])


def record(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + struct.pack("<I", masked_crc(length)) + payload + struct.pack("<I", masked_crc(payload))


def masked_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def notebook(*outputs: Mapping[str, Any], source: str = "trainer.train()") -> bytes:
    cell = {"cell_type": "code", "execution_count": 1, "metadata": {}, "source": [source], "outputs": outputs}
    text = {"cell_type": "markdown", "metadata": {}, "source": ["# {'loss': 9.9, 'epoch': 9}"]}
    return json.dumps(
        {"cells": [text, cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1
    ).encode()


def stream_output(text: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)}


def table_output(header: Sequence[str], rows: Iterable[Sequence[str]], label: str = "") -> dict[str, Any]:
    """The Trainer's table in a notebook (transformers/utils/notebook.py)."""
    html = f"<div><progress value='30' max='30'></progress>\n{label}</div>\n"
    html += '<table border="1" class="dataframe">\n  <thead>\n <tr style="text-align: left;">\n'
    html += "".join(f"      <th>{cell}</th>\n" for cell in header) + "    </tr>\n  </thead>\n  <tbody>\n"
    for row in rows:
        html += "    <tr>\n" + "".join(f"      <td>{cell}</td>\n" for cell in row) + "    </tr>\n"
    html += "  </tbody>\n</table><p>"
    data = {"text/html": html.splitlines(keepends=True), "text/plain": ["<IPython.core.display.HTML object>"]}
    return {"output_type": "display_data", "metadata": {}, "data": data}


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)
