"""How far the run is, how fast, what it costs and when it ends."""

from __future__ import annotations

from textual.content import Content

from dpo_telemetry.events import Phase, PhaseName
from dpo_telemetry.figures import clock_text, duration, number, step_time
from dpo_telemetry.text import printable
from dpo_tui.signs import Signs
from dpo_tui.snapshot import Snapshot

DOING: dict[PhaseName, str] = {
    "load": "loading",
    "reference": "reference pass",
    "train": "training",
    "eval": "evaluating",
    "save": "saving",
}
DAY_S = 86_400
GAP = "   "
SHORTEST_BAR = 10


def progress(snapshot: Snapshot, width: int, height: int, signs: Signs) -> list[Content]:
    """In one line what moves now; in two the steps of the run, then what moves now or the pace."""
    what = reading(snapshot, width, signs) or doing(snapshot, width, signs)
    if height < 2:
        return [what or steps(snapshot, width, signs, [time_left(snapshot), *pace(snapshot)])]
    first = steps(snapshot, width, signs, [time_left(snapshot)])
    return [first, what or _figures(pace(snapshot), width)]


def steps(snapshot: Snapshot, width: int, signs: Signs, figures: list[str]) -> Content:
    """A bar of the steps made, and as many figures as there is room for."""
    if not snapshot.max_steps:
        return bar(None, f"step {snapshot.step}", figures, width, signs)
    share = min(1.0, snapshot.step / snapshot.max_steps)
    return bar(share, f"step {snapshot.step}/{snapshot.max_steps}  {share:.0%}", figures, width, signs)


def doing(snapshot: Snapshot, width: int, signs: Signs) -> Content | None:
    """The phase that a run is in besides training, with its own progress; None when there is none."""
    phase = snapshot.phase
    if phase is None or phase.name == "train" or phase.state == "end" or snapshot.status.ended:
        return None
    share, far = _far(phase)
    text = DOING[phase.name] + (f" {far}" if far else "")
    message = printable(phase.message)
    return bar(share, text, [message] if message else [], width, signs)


def reading(snapshot: Snapshot, width: int, signs: Signs) -> Content | None:
    """How much of the run's data was read, until all of it was."""
    share = snapshot.reading
    if share is None or share >= 1:
        return None
    return bar(share, f"reading the run  {share:.0%}", [], width, signs)


def pace(snapshot: Snapshot) -> list[str]:
    """Step time, throughput and cost, as far as they are known."""
    figures = []
    if snapshot.step_time_s is not None:
        figures.append(f"{step_time(snapshot.step_time_s)}/step")
    if snapshot.tokens_per_s is not None:
        figures.append(f"{number(snapshot.tokens_per_s, 3)} tok/s")
    if snapshot.pairs_per_s is not None:
        figures.append(f"{number(snapshot.pairs_per_s, 3)} pairs/s")
    return [*figures, *cost(snapshot)]


def cost(snapshot: Snapshot) -> list[str]:
    """Spent so far, and what it will have been at the end."""
    if snapshot.cost is None:
        return []
    money = printable(snapshot.cost.currency)
    spent, total = snapshot.cost.spent, snapshot.cost.total
    if total is None:
        return [f"cost {spent:,.2f} {money}"]
    return [f"cost {spent:,.2f} of {total:,.2f} {money}"]


def time_left(snapshot: Snapshot) -> str:
    """Time left and the clock time of the end; nothing when it is over or not known."""
    if snapshot.eta_s is None or snapshot.status.ended:
        return ""
    return f"{duration(snapshot.eta_s)} left, ends {clock_time(snapshot)}"


def clock_time(snapshot: Snapshot) -> str:
    """When the run ends, in the time of this place: 14:32, or with the day when it is not today."""
    end_s = snapshot.now_s + (snapshot.eta_s or 0.0)
    day = clock_text(end_s, "%Y-%m-%d")
    if not day:
        return "out of sight"
    if day == clock_text(snapshot.now_s, "%Y-%m-%d"):
        return clock_text(end_s, "%H:%M")
    return clock_text(end_s, "%a %H:%M") if end_s - snapshot.now_s < 6 * DAY_S else day


def bar(share: float | None, label: str, figures: list[str], width: int, signs: Signs) -> Content:
    """A bar that takes what label and figures leave; the last figures give way to it."""
    shown = [label, *filter(None, figures)]
    while len(shown) > 1 and width - len(GAP.join(shown)) - 2 < max(SHORTEST_BAR, width // 5):
        shown.pop()
    text = GAP.join(shown)
    bar_width = max(0, width - len(text) - 2)
    done = round((share or 0.0) * bar_width)
    return Content.assemble(
        (signs.full * done, "$primary"),
        (signs.empty * (bar_width - done), "$chart-grid"),
        "  ",
        (label, "bold"),
        text[len(label) :],
    ).truncate(width, ellipsis=True)


def _far(phase: Phase) -> tuple[float | None, str]:
    """Share of a phase, and how far it is in its own unit."""
    if phase.total is None or phase.total <= 0:
        return None, _count(phase.done) if phase.done else ""
    done, total = phase.done or 0.0, phase.total
    share = min(1.0, max(0.0, done / total))
    if total == 1:
        return share, f"{share:.0%}" if done else ""
    unit = f" {printable(phase.unit)}" if phase.unit else ""
    return share, f"{_count(done)}/{_count(total)}{unit}  {share:.0%}"


def _count(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e9 else number(value)


def _figures(figures: list[str], width: int) -> Content:
    """Figures in one line, those that fit."""
    shown = list(figures)
    while len(shown) > 1 and len(GAP.join(shown)) > width:
        shown.pop()
    return Content.styled(GAP.join(shown), "$secondary").truncate(width, ellipsis=True)
