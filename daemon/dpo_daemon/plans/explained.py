"""`--explain COMPONENT`: the parts of one component with the formulas that they come from."""

from __future__ import annotations

import textwrap

from rich.console import Console
from rich.text import Text

from dpo_daemon.plans.draw import say
from dpo_profiles.plan.explain import Explained
from dpo_profiles.plan.report import Plan
from dpo_telemetry.figures import size

INDENT = "    "


def print_explained(plan: Plan, component: str, entries: list[Explained]) -> None:
    """Each part with its bytes, the phases that have it, its formula and where that is from."""
    console = Console()
    count = plan.per_gpu[0].components[component]
    say(console, f"{plan.profile}: {component}: at most {size(count)} on each GPU")
    if not entries:
        console.print(f"{component} is 0 in every phase of this profile")
    for entry in entries:
        line = Text(f"{entry.part}  ", "bold")
        line.append(f"{size(entry.bytes)}  {entry.bytes:,} B  in {', '.join(entry.phases)}", "")
        console.print(line, soft_wrap=True)
        _indented(console, f"= {entry.formula}")
        _indented(console, f"source: {entry.source}")


def _indented(console: Console, text: str) -> None:
    if console.is_terminal:
        text = textwrap.fill(text, console.width, initial_indent=INDENT, subsequent_indent=INDENT + "  ")
    else:
        text = INDENT + text
    console.print(Text(text), soft_wrap=True)
