"""A job for tests: it behaves like the trainer towards agent, keeper and launcher, and trains nothing.

Steered by the environment: STANDIN_STEPS, STANDIN_STEP_S, STANDIN_FAIL (exit code after a line
on stderr, on all ranks or on STANDIN_FAIL_RANK), STANDIN_DEAF (ignores SIGTERM and requests),
STANDIN_ORPHAN (leaves a child in a session of its own), STANDIN_NAN (step whose loss is NaN, which
is an alert), STANDIN_BROKEN_RANK (fails at its second step and says so in its exit event),
STANDIN_SAVES (tests itself, evaluates, saves each step, resumes, and leaves an adapter; the value is
a fault of these, or none).

Several ranks meet after each step, as in a collective: a rank that is gone takes the others along.
"""

from __future__ import annotations

import json
import math
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

from dpo_telemetry import events, identity
from dpo_telemetry.rundir import control
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.writer import EventWriter

STEPS = int(os.environ.get("STANDIN_STEPS", "5"))
STEP_S = float(os.environ.get("STANDIN_STEP_S", "0.05"))
DEAF = "STANDIN_DEAF" in os.environ
RANK = int(os.environ.get("RANK", "0"))
WORLD_SIZE = int(os.environ.get("WORLD_SIZE", "1"))
POLL_S = 0.005
FAULT = os.environ.get("STANDIN_SAVES")


class Job:
    def __init__(self, run: RunDirectory, number: int) -> None:
        self.run = run
        self.number = number
        self.stopping = False
        self.answered: set[str] = set()
        self.writer = EventWriter(run.attempt(number).event_file(f"rank-{RANK:05d}"))
        signal.signal(signal.SIGTERM, self.on_sigterm)

    def on_sigterm(self, *_: object) -> None:
        self.stopping = not DEAF
        os.write(1, b"SIGTERM\n")

    def train(self) -> str:
        this = identity.current()
        self.writer.put(
            events.Start(
                **events.stamp(), role="rank", host=identity.host_name(), pid=this.pid, boot_id=this.boot_id,
                process_started=this.started, rank=RANK, world_size=WORLD_SIZE, attempt=self.number,
                max_steps=STEPS, device="cpu", resumed_from_step=self.resumed_from() or None,
            )
        )  # fmt: skip
        if FAULT is not None and FAULT != "no self-test":
            self.test_itself()
        self.writer.set_heartbeat(0.5, lambda: events.Heartbeat(**events.stamp(), phase="train"))
        self.writer.put(events.Phase(**events.stamp(), name="train", state="begin"))
        for step in range(1 + self.resumed_from(), STEPS + 1):
            if os.environ.get("STANDIN_BROKEN_RANK") == str(RANK) and step == 2:
                raise ValueError("this rank is broken")
            self.step(step)
            self.serve(step)
            if FAULT is not None:
                self.save(step)
            if self.meet(step):
                return f"stopped at step {step}"
        if FAULT is not None:
            self.save_adapter()
        return "finished"

    def resumed_from(self) -> int:
        saved = [int(path.name[5:]) for path in self.run.checkpoints_dir.glob("step-*")]
        return max(saved, default=0) if self.number > 1 else 0

    def test_itself(self) -> None:
        message = "self-test: sharding: every rank holds the whole base"
        self.writer.put(events.Phase(**events.stamp(), name="reference", state="progress", message=message))
        if FAULT == "alert":
            self.writer.put(
                events.Alert(**events.stamp(), code="not_sharded", severity="critical", message="all of it")
            )

    def save(self, step: int) -> None:
        if FAULT != "no evaluation":
            metrics: dict[str, events.Number] = {"eval_loss": 0.69}
            self.writer.put(events.Eval(**events.stamp(), step=step, metrics=metrics, pairs=2))
        if FAULT != "no checkpoint":
            (self.run.checkpoints_dir / f"step-{step:05d}").mkdir()

    def save_adapter(self) -> None:
        folder = self.run.adapter_dir
        folder.mkdir()
        (folder / "adapter_config.json").write_text('{"r": 16}')
        value = 2 if FAULT == "other adapter" and self.number > 1 else 1
        shape = [0] if FAULT == "empty adapter" else [16, 2]
        data = struct.pack("<f", value) * math.prod(shape)
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, len(data)]}
        header = json.dumps({"model.q_proj.lora_A.weight": entry}).encode()
        file = folder / "adapter_model.safetensors"
        file.write_bytes(len(header).to_bytes(8, "little") + header + data)

    def step(self, step: int) -> None:
        time.sleep(STEP_S)
        margin = 0.0 if step == 1 else 0.01 * step
        if FAULT == "other curve" and self.number > 1:
            margin += 1e-6
        loss = math.nan if os.environ.get("STANDIN_NAN") == str(step) else math.log1p(math.exp(-margin))
        metrics: dict[str, events.Number] = {
            "loss": events.to_number(loss),
            "grad_norm": 1.0 + 0.01 * step,
            "rewards/margins": margin,
            "rewards/chosen": margin / 2,
            "rewards/rejected": -margin / 2,
            "rewards/accuracies": 0.0 if step == 1 else 1.0,
            "logps/chosen": -100.123,
            "logps/rejected": -120.456,
        }
        self.writer.put(events.Step(**events.stamp(), step=step, metrics=metrics, times_s={"step": STEP_S}))
        print(f"step {step}", flush=True)  # noqa: T201 - this is the log of the job

    def serve(self, step: int) -> None:
        for request in [] if DEAF else control.pending(self.run, self.number, self.answered):
            self.answered.add(request.id)
            self.stopping = self.stopping or request.action == "stop"
            self.writer.put(
                events.Answer(**events.stamp(), id=request.id, ok=True, message=f"{request.action} at {step}")
            )

    def meet(self, step: int) -> bool:
        """Wait for all ranks at the end of a step; whether one of them wants to stop."""
        if WORLD_SIZE == 1:
            return self.stopping
        folder = self.run.path / "meeting"
        folder.mkdir(exist_ok=True)
        mine = folder / f"{self.number}-{step}-{RANK}"
        mine.with_suffix(".new").write_text(f"{os.getpid()} {int(self.stopping)}")
        mine.with_suffix(".new").rename(mine)
        said = [self.hear(folder, step, rank).split() for rank in range(WORLD_SIZE)]
        return any(stop == "1" for _, stop in said)

    def hear(self, folder: Path, step: int, rank: int) -> str:
        word, before = (folder / f"{self.number}-{at}-{rank}" for at in (step, step - 1))
        while not word.exists():
            if before.exists() and not running(int(before.read_text().split()[0])) and not word.exists():
                raise ConnectionResetError("Connection reset by peer")
            time.sleep(POLL_S)
        return word.read_text()


def running(pid: int) -> bool:
    try:
        return identity.of_pid(pid).alive()
    except Exception:  # noqa: BLE001 - gone in between
        return False


def redirect(run: RunDirectory, number: int) -> None:
    log = os.open(run.attempt(number).log_file(RANK), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)


def main() -> int:
    run, number = RunDirectory(Path(sys.argv[1])), int(sys.argv[2])
    if "WORLD_SIZE" in os.environ:
        redirect(run, number)
    if "STANDIN_FAIL" in os.environ and os.environ.get("STANDIN_FAIL_RANK", str(RANK)) == str(RANK):
        sys.stderr.write("error: profile.toml: data.name: no such file; name another\n")
        return int(os.environ["STANDIN_FAIL"])
    if "STANDIN_ORPHAN" in os.environ:
        subprocess.Popen(["sleep", "600"], start_new_session=True)
    job, code = Job(run, number), 0
    try:
        reason = job.train()
    except Exception as error:  # noqa: BLE001 - as the trainer tells of its end
        code, reason = 70, f"{type(error).__name__}: {error}"
    job.writer.put(events.Exit(**events.stamp(), role="rank", rank=RANK, code=code, reason=reason))
    job.writer.close()
    return code


if __name__ == "__main__":
    sys.exit(main())
