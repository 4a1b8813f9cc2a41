"""Each file in bad/ holds one mistake; the line it must give stands beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpo_profiles.errors import ProfileError
from dpo_profiles.load import load_profile, shipped_names

BAD = Path(__file__).parent / "bad"


@pytest.mark.parametrize("name", sorted(path.stem for path in BAD.glob("*.toml")))
def test_each_mistake_gives_its_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BAD)
    expected = (BAD / f"{name}.expected").read_text().rstrip("\n")
    expected = expected.replace("BAD", str(BAD)).replace("SHIPPED", ", ".join(shipped_names()))
    with pytest.raises(ProfileError) as caught:
        load_profile(f"{name}.toml")
    assert caught.value.message == expected
    assert caught.value.exit_code == 2


def test_every_expected_line_has_its_file() -> None:
    assert {path.stem for path in BAD.glob("*.expected")} == {path.stem for path in BAD.glob("*.toml")}


def test_every_expected_line_is_one_line_with_a_mend() -> None:
    for path in BAD.glob("*.expected"):
        text = path.read_text()
        assert text.count("\n") == 1, path.name
        assert "; " in text, path.name
