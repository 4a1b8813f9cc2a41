"""`--fit`: settings that fit, and what would where none does."""

from __future__ import annotations

import json
import shlex

from rich.console import Console
from rich.text import Text

from dpo_daemon.plans.draw import say
from dpo_profiles.plan.fit import Choice, Fit, Ranked, left_of
from dpo_profiles.plan.fit_cost import STATED
from dpo_profiles.plan.report import Plan
from dpo_telemetry.figures import size

GIB = 1 << 30


def print_fit(plan: Plan, fit: Fit, mends: list[str], notes: list[str]) -> None:
    """The best settings, each with its headroom, its next steps up and the options that choose it.

    Args:
        plan: of the profile's own settings.
        fit: what was found.
        mends: what would make the first setting fit, where none does.
        notes: lines about the card.
    """
    console = Console()
    card = (
        f"{plan.gpu.name} with {size(plan.gpu.capacity_bytes)}"
        if plan.gpu.name
        else size(plan.gpu.capacity_bytes)
    )
    say(console, f"{plan.profile}: {plan.model.name} on {card}, {size(fit.reserve_bytes)} of it in reserve")
    if fit.fits:
        say(console, f"{fit.tried} settings planned; the cheapest of those that fit:")
    else:
        console.print(Text(f"none of {fit.tried} settings fits; the nearest:", "bold red"))
    for number, ranked in enumerate(fit.best, 1):
        _print_ranked(console, number, ranked, fit)
    if not plan.calibrated:
        notes = [*notes, "no measurement of this kind of job and card is behind these figures"]
    for line in (*_notes(fit), *notes):
        say(console, f"- {line}", hang="  ")
    if not fit.fits:
        _print_mends(console, mends)


def _print_ranked(console: Console, number: int, ranked: Ranked, fit: Fit) -> None:
    profile, choice = ranked.profile, ranked.choice
    engine, train = profile.engine, profile.train
    count = f"{engine.world_size} GPU{'s' if engine.world_size > 1 else ''}"
    checkpointing = "checkpointing" if train.gradient_checkpointing else "no checkpointing"
    headroom = choice.headroom_bytes
    room = f"headroom {headroom / GIB:.1f} GiB" if choice.fits else left_of(headroom - fit.reserve_bytes)
    mark = " *" if ranked.contradiction else ""
    say(
        console,
        f"{number:>2}. cost {choice.cost:.2f}  {room}  {count} {engine.backend}, "
        f"{train.micro_batch_pairs} x {train.gradient_accumulation_steps} pairs, "
        f"{profile.data.max_length_tokens} tokens, {checkpointing}{_sharding(choice)}{mark}",
        hang="    ",
    )
    if choice.why:
        host = f"; host memory {size(choice.host_ram_bytes)}" if choice.offload else ""
        say(console, f"    {choice.why}{host}", hang="      ")
    if choice.fits:
        steps = "; ".join(f"{name}: {left_of(spare)}" for name, spare in choice.steps_up.items())
        say(console, f"    next step up: {steps}", hang="      ")
    if choice.set:
        # Not wrapped, so that it can be copied.
        console.print(Text(f"    {options(choice.set)}"), soft_wrap=True)
    else:
        say(console, "    the profile's own settings")


def _sharding(choice: Choice) -> str:
    """What the engine file does beside the usual."""
    kept = "" if choice.reshard_after_forward else ", layers kept gathered"
    return kept + (", offload" if choice.offload else "")


def options(settings: dict[str, object]) -> str:
    """The command line's options that make these settings."""
    return " ".join(
        f"--set {shlex.quote(f'{path}={json.dumps(value)}')}" if value == "" or isinstance(value, bool)
        else f"--set {shlex.quote(f'{path}={value}')}"
        for path, value in settings.items()
    )  # fmt: skip


def _notes(fit: Fit) -> list[str]:
    notes = [f"each update keeps its {fit.batch_pairs} pairs: accumulation follows micro-batch and GPUs"]
    if fit.left_out:
        notes[0] += f"; {fit.left_out} settings were left out, since no accumulation does that for them"
    contradicted = sorted(
        {ranked.contradiction.partition(" ")[0] for ranked in fit.best if ranked.contradiction}
    )
    if contradicted:
        first = next(ranked.contradiction for ranked in fit.best if ranked.contradiction)
        notes.append(
            f'* {", ".join(contradicted)} has figures of its own: write these settings, or "auto", into a copy of '
            f"it ({first.partition('; ')[0]})"
        )
    notes.append(STATED)
    return notes


def _print_mends(console: Console, mends: list[str]) -> None:
    if not mends:
        say(console, "nothing that was tried would make the first of them fit; take a smaller model")
        return
    say(console, f"the smallest change that would make the first of them fit: {mends[0]}")
    for mend in mends[1:]:
        say(console, f"  or {mend}", hang="     ")
