"""A test whose system program is missing is left out and named, never silently passed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CASE = """
import pytest

@pytest.mark.system("no-such-program-anywhere")
def test_needs_it(): raise AssertionError

def test_needs_nothing(): pass
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_it_is_named_in_the_summary(tmp_path: Path, workers: str) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_case.py").write_text(CASE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = system(program): needs it\n")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", workers, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "left out for want of a system program" in result.stdout
    assert "test_needs_it (no no-such-program-anywhere)" in result.stdout
    assert "1 passed" in result.stdout
