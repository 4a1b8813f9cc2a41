"""A job for tests: it behaves like the trainer towards agent and keeper, and trains nothing.

Steered by the environment: STANDIN_STEPS, STANDIN_STEP_S, STANDIN_FAIL (exit code after a line
on stderr), STANDIN_DEAF (ignores SIGTERM and requests), STANDIN_ORPHAN (leaves a child in a
session of its own), STANDIN_NAN (step whose loss is NaN, which is an alert).
"""

from __future__ import annotations

import math
import os
import signal
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


class Job:
    def __init__(self, run: RunDirectory, number: int) -> None:
        self.run = run
        self.number = number
        self.stopping = False
        self.answered: set[str] = set()
        self.writer = EventWriter(run.attempt(number).event_file("rank-00000"))
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopping", not DEAF))

    def train(self) -> str:
        this = identity.current()
        self.writer.put(
            events.Start(
                **events.stamp(), role="rank", host=identity.host_name(), pid=this.pid, boot_id=this.boot_id,
                process_started=this.started, rank=0, world_size=1, attempt=self.number, max_steps=STEPS,
            )
        )  # fmt: skip
        self.writer.set_heartbeat(0.5, lambda: events.Heartbeat(**events.stamp(), phase="train"))
        self.writer.put(events.Phase(**events.stamp(), name="train", state="begin"))
        for step in range(1, STEPS + 1):
            self.step(step)
            self.serve(step)
            if self.stopping:
                return f"stopped at step {step}"
        return "finished"

    def step(self, step: int) -> None:
        time.sleep(STEP_S)
        margin = 0.0 if step == 1 else 0.01 * step
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


def main() -> int:
    run, number = RunDirectory(Path(sys.argv[1])), int(sys.argv[2])
    if "STANDIN_FAIL" in os.environ:
        sys.stderr.write("error: profile.toml: data.name: no such file; name another\n")
        return int(os.environ["STANDIN_FAIL"])
    if "STANDIN_ORPHAN" in os.environ:
        subprocess.Popen(["sleep", "600"], start_new_session=True)
    job = Job(run, number)
    reason = job.train()
    job.writer.put(events.Exit(**events.stamp(), role="rank", rank=0, code=0, reason=reason))
    job.writer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
