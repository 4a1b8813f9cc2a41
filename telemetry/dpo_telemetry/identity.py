"""Which process wrote this, and is it still there: boot id, pid and start time together."""

from __future__ import annotations

import getpass
import os
import socket
import uuid
from functools import cache
from pathlib import Path
from typing import TypedDict

import msgspec
import psutil

START_TOLERANCE_S = 1.0
"""psutil derives a start time from the boot time, which moves a little when the clock is set."""


class ProcessIdentity(msgspec.Struct, frozen=True):
    """A process that no other can be mistaken for."""

    boot_id: str
    pid: int
    started: float
    """Start time, seconds since the epoch."""

    def alive(self) -> bool:
        """Whether this very process runs on this very host and boot."""
        if self.boot_id != boot_id():
            return False
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) <= START_TOLERANCE_S
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


@cache
def boot_id() -> str:
    """The kernel's boot id; where there is none, the host's hardware address stands in."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{uuid.getnode():012x}"


def current() -> ProcessIdentity:
    """The identity of the calling process."""
    return of_pid(os.getpid())


class WriterFields(TypedDict):
    """What a Start event says of the process that writes it."""

    host: str
    pid: int
    boot_id: str
    process_started: float


def writer_fields() -> WriterFields:
    """The calling process, for `Start(**stamp(), **writer_fields(), role=...)`."""
    this = current()
    return WriterFields(host=host_name(), pid=this.pid, boot_id=this.boot_id, process_started=this.started)


def of_pid(pid: int) -> ProcessIdentity:
    """The identity of a process on this host.

    Raises:
        psutil.NoSuchProcess: there is no such process.
    """
    return ProcessIdentity(boot_id(), pid, psutil.Process(pid).create_time())


def user_name() -> str:
    """Who runs this process; `uid N` for one that the host has no name for, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def host_name() -> str:
    """This host's name, safe as a part of a file name."""
    return (
        "".join(c if (c.isascii() and c.isalnum()) or c in "-." else "-" for c in socket.gethostname())
        or "localhost"
    )
