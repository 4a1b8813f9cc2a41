"""Keeps the health rules at the rows that people see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.diagnosis import Diagnosis
from dpo_telemetry.health.rule import Context
from dpo_telemetry.series.columns import SeriesStore


class Judge:
    """Feeds new rows to the rules; where rows were superseded, or the profile is another, they start over."""

    def __init__(self, series: SeriesStore) -> None:
        self.context = Context()
        self.diagnosis = Diagnosis(self.context)
        self._tables = (series.train, series.eval)
        self._profile: Mapping[str, Any] = {}
        self._fed = [0, 0]
        self._order: tuple[int, ...] = (0, 0, 0)
        self._known: list[HealthAlert] | None = None

    def alerts(self) -> list[HealthAlert]:
        """What the rules say, those included that the profile does not want to hear."""
        return self.diagnosis.alerts() if self._known is None else list(self._known)

    def know(self, alerts: Iterable[HealthAlert], attempt: int, profile: Mapping[str, Any]) -> None:
        """Take what the rules said of the rows that are there; they look themselves once there are more."""
        self._known = list(alerts)
        self._profile, self.context = profile, Context.of_profile(profile)
        self._order = (attempt, *(table.out_of_order() for table in self._tables))
        self._fed = [len(table) for table in self._tables]

    def look(self, attempt: int, profile: Mapping[str, Any]) -> None:
        """Let the rules see what is new.

        Args:
            attempt: number of the newest one, 0 for none.
            profile: its resolved profile.
        """
        context = self.context if profile is self._profile else Context.of_profile(profile)
        self._profile = profile
        order = (attempt, *(table.out_of_order() for table in self._tables))
        start_over = order != self._order or context != self.context
        if self._known is not None:
            if not start_over and self._fed == [len(table) for table in self._tables]:
                return
            self._known, start_over = None, True
        if start_over:
            self._order, self.context = order, context
            self.diagnosis = Diagnosis(context)
        for at, table in enumerate(self._tables):
            if start_over:
                self.diagnosis.feed(table.rows(table.effective_rows()))
            elif self._fed[at] < len(table):
                self.diagnosis.feed(table.tail(self._fed[at]))
            self._fed[at] = len(table)
