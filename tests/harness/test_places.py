"""Where the user's files are, whatever the environment says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness import places
from harness.build.cache import default_root
from harness.cli import settings
from harness.results import journal

FOLDERS: list[tuple[Callable[[], Path], str, str]] = [
    (lambda: default_root(), "XDG_CACHE_HOME", ".cache/kvmirror"),
    (lambda: journal.default_path(), "XDG_STATE_HOME", ".local/state/kvmirror/journal.sqlite"),
    (lambda: settings.user_file(), "XDG_CONFIG_HOME", ".config/kvmirror/config.toml"),
]


@pytest.mark.parametrize(("place", "variable", "usual"), FOLDERS)
def test_users_folders(
    place: Callable[[], Path], variable: str, usual: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KVMIRROR_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    end = usual[usual.index("kvmirror") :]
    for value, expected in (
        (None, tmp_path / usual),
        ("", tmp_path / usual),
        (str(tmp_path / "own"), tmp_path / "own" / end),
        # The specification has relative paths ignored: what is kept must not depend on where one stands.
        ("somewhere", tmp_path / usual),
    ):
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
        assert place() == expected
        assert not expected.exists()  # asking makes nothing


def test_a_checkout_has_its_own_folders() -> None:
    root = Path(__file__).resolve().parents[2]
    assert (
        root, root, root / "images", root / "patches",
    ) == (places.CHECKOUT, places.DATA, places.IMAGES, places.PATCHES)  # fmt: skip
