"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

run_argument = click.argument("run_text", metavar="[RUN]", required=False)

runs_dir_option = click.option(
    "--runs-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where runs live; else $DPO_RUNS_DIR, else ./runs.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")

profile_option = click.option(
    "--profile", "profile_name", metavar="NAME|FILE", required=True, help="A shipped profile, or a TOML file."
)

set_option = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one field, for example loss.beta=0.2.",
)


def print_json(value: Mapping[str, Any] | msgspec.Struct) -> None:
    """One JSON object on stdout."""
    click.echo(msgspec.json.encode(value).decode())
