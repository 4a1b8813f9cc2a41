"""A process is itself and not another that got its pid."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import psutil
import pytest

from dpo_telemetry import identity

Eventually = Callable[..., Any]


def test_the_calling_process_is_alive() -> None:
    me = identity.current()
    assert me.pid == os.getpid()
    assert me.alive()
    assert msgspec.json.decode(msgspec.json.encode(me), type=identity.ProcessIdentity) == me


def test_a_recycled_pid_is_not_alive() -> None:
    assert not msgspec.structs.replace(identity.current(), started=identity.current().started - 60).alive()


def test_a_process_of_an_earlier_boot_is_not_alive() -> None:
    assert not msgspec.structs.replace(identity.current(), boot_id="another").alive()


def test_a_process_that_ended_is_not_alive_even_before_it_is_reaped(eventually: Eventually) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    child = identity.of_pid(process.pid)
    assert child.alive()
    process.kill()
    eventually(lambda: not child.alive(), "the zombie is not alive")
    process.communicate()
    assert not child.alive()


def test_there_is_no_identity_of_a_pid_that_is_not_there() -> None:
    with pytest.raises(psutil.NoSuchProcess):
        identity.of_pid(1 << 22)


@pytest.mark.parametrize(
    ("name", "safe"), [("node-1.cluster", "node-1.cluster"), ("nœud/1 a", "n-ud-1-a"), ("", "localhost")]
)
def test_a_host_name_is_safe_in_a_file_name(monkeypatch: pytest.MonkeyPatch, name: str, safe: str) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: name)
    assert identity.host_name() == safe


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999_999)
    assert identity.user_name() == "uid 3999999999"
