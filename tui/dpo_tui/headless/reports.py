"""Diagnoses in the forms that CI systems read: JUnit's XML, and GitHub's workflow commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from xml.etree import ElementTree

from dpo_telemetry.events import Severity
from dpo_telemetry.text import printable
from dpo_tui.headless.result import Outcome, is_grave

SUITE = "dpo-tui replay"
_GITHUB_LEVEL: dict[Severity, str] = {"critical": "error", "warning": "warning", "info": "notice"}


def junit(outcomes: Iterable[Outcome], fail_on: Severity) -> Iterator[str]:
    """One test case a log: alerts from `fail_on` on are failures, a log that cannot be read is an error.

    Source: the JUnit schema that Jenkins and GitLab read (`testsuites/testsuite/testcase`).
    """
    suite = ElementTree.Element("testsuite", name=SUITE)
    failures = errors = tests = 0
    for outcome in outcomes:
        tests += 1
        case = ElementTree.SubElement(suite, "testcase", classname=SUITE, name=outcome.source)
        if outcome.result is None:
            errors += 1
            ElementTree.SubElement(case, "error", message=outcome.error)
            continue
        grave = [alert for alert in outcome.result.alerts if is_grave(alert.severity, fail_on)]
        failures += bool(grave)
        for alert in grave:
            failure = ElementTree.SubElement(
                case, "failure", type=alert.code, message=printable(alert.message)
            )
            failure.text = printable(alert.advice)
    for name, count in (("tests", tests), ("failures", failures), ("errors", errors)):
        suite.set(name, str(count))
    whole = ElementTree.Element("testsuites")
    whole.append(suite)
    ElementTree.indent(whole)
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield ElementTree.tostring(whole, encoding="unicode")


def github(outcomes: Iterable[Outcome], fail_on: Severity) -> Iterator[str]:
    """A workflow command a line: an annotation for each alert, and an error for a log that cannot be read.

    An alert below `fail_on` annotates and fails nothing; that is the exit code's to say.
    """
    for outcome in outcomes:
        if outcome.result is None:
            yield _command("error", outcome.source, "unreadable", outcome.error)
            continue
        for alert in outcome.result.alerts:
            text = f"{printable(alert.message)}. {printable(alert.advice)}".rstrip()
            yield _command(_GITHUB_LEVEL[alert.severity], outcome.source, alert.code, text)


REPORTS: dict[str, Callable[[Iterable[Outcome], Severity], Iterator[str]]] = {
    "junit": junit,
    "github": github,
}
"""By the name that `--format` takes."""


def _command(level: str, file: str, title: str, text: str) -> str:
    return f"::{level} file={_property(file)},title={_property(title)}::{_data(text)}"


def _data(text: str) -> str:
    """Escaped as the runner undoes it (actions/toolkit, packages/core/src/command.ts)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(printable(text)).replace(":", "%3A").replace(",", "%2C")
