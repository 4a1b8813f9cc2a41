"""A preparation for tests: it says what the trainer's own program says, and makes no model.

STANDIN_UNPREPARED is an exit code, after a line on stderr.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> int:
    into = Path(sys.argv[sys.argv.index("--into") + 1])
    if "STANDIN_UNPREPARED" in os.environ:
        sys.stderr.write("some warning\nerror: data.name: no such data set; name another\n")
        return int(os.environ["STANDIN_UNPREPARED"])
    (into / "model").mkdir()
    pairs = into / "pairs.jsonl"
    pairs.write_text('{"chosen": "a", "rejected": "b"}\n')
    notes = ["a random model stands in for nobody/tiny-model"]
    answer = {"model": str(into / "model"), "data": str(pairs), "adapter": "", "notes": notes}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
