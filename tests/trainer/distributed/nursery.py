"""Loads the training stack once, and forks ranks from it: loading it is most of a small run.

Reads a JSON object a line, {"world": N, "settings": {...}}, N = 0 being one process without a
launcher, and answers with the ranks' exit codes in JSON.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from typing import Any

from tests.trainer.distributed import rank

DEADLINE_S = 240


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        children = [fork(number, port, order) for number in range(max(order["world"], 1))]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        sys.stdout.write(json.dumps(codes) + "\n")
        sys.stdout.flush()


def fork(number: int, port: int, order: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        signal.alarm(DEADLINE_S)
        if world := order["world"]:
            os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number)}
            os.environ |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        else:
            # The answers go through stdout, and only ranks of several have a log of their own.
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        code = rank.run(**order["settings"])
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
