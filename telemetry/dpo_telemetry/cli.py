"""The one place where a command line ends: exit codes and the one line that an error is.

0 fine, 1 bad news, 2 the question was wrong, 70 our own bug, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

import click
import platformdirs
from click.exceptions import NoArgsIsHelpError

from dpo_telemetry.text import printable

EXIT_FINE = 0
EXIT_BAD_NEWS = 1
EXIT_USAGE = 2
EXIT_BUG = 70
EXIT_INTERRUPTED = 130

APP_NAME = "dpo-deck"


def run(command: click.Command, prog_name: str) -> NoReturn:
    """Run a command line and leave the process with the right code; a traceback goes to the log only."""
    sys.exit(exit_code_of(command, prog_name))


def exit_code_of(command: click.Command, prog_name: str, args: list[str] | None = None) -> int:
    """Run a command line and return its exit code, errors rendered on stderr."""
    stdout = sys.stdout
    try:
        code = command.main(args=args, prog_name=prog_name, standalone_mode=False)
        if sys.stdout is not None:  # None where it was closed before the start
            sys.stdout.flush()
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else prog_name
        what = "Missing command." if isinstance(error, NoArgsIsHelpError) else error.format_message()
        render(f"{what} See `{path} --help`.")
        return EXIT_USAGE
    except click.ClickException as error:
        render(error.format_message())
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except SystemExit:
        if sys.stdout is not stdout:
            return EXIT_FINE  # click saw the reader of our output leave
        raise
    except BrokenPipeError:
        # The reader of our output left; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FINE
    except OSError as error:
        record_traceback(prog_name)
        where = f"{error.filename}: " if error.filename else ""
        render(f"{where}{error.strerror or error}")
        return EXIT_USAGE
    except Exception as error:  # noqa: BLE001 - the last line of defence before the user
        log = record_traceback(prog_name)
        render(f"this is a bug in {prog_name}: {type(error).__name__}: {error}; the traceback is in {log}")
        return EXIT_BUG
    return code if isinstance(code, int) else EXIT_FINE


def render(message: str) -> None:
    """Print one error line on stderr, coloured on a terminal only."""
    with contextlib.suppress(OSError):
        click.echo(click.style("error: ", fg="red", bold=True) + printable(message), err=True)


def record_traceback(prog_name: str) -> str:
    """Append the exception being handled to the user's log; returns where, for the message."""
    try:
        file = Path(platformdirs.user_log_dir(APP_NAME, ensure_exists=True)) / f"{prog_name}.log"
        with file.open("a", errors="backslashreplace") as log:
            head = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {os.getpid()} command: {sys.argv}"
            log.write(f"{head}\n{traceback.format_exc()}")
    except OSError as error:
        return f"no log ({error.strerror})"
    return str(file)
