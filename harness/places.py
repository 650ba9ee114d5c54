"""Where files lie: the program's own, in a checkout as in an installed wheel, and the user's.

A checkout has ``images/`` and ``patches/`` beside the packages; a wheel carries them inside, in ``harness/_data``.
A file that lies beside the module which reads it is that module's own and is not listed here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import platformdirs

PACKAGES: Final = Path(__file__).resolve().parent.parent
"""The folder with the packages ``harness`` and ``kvmodel``: the checkout, or site-packages."""

_CARRIED: Final = PACKAGES / "harness" / "_data"  # pyproject.toml puts it into the wheel
DATA: Final = _CARRIED if _CARRIED.is_dir() else PACKAGES
IMAGES: Final = DATA / "images"
"""Sources and patches of what is built to run: emulator, probe, client, root file system, kernel configuration."""
PATCHES: Final = DATA / "patches"
"""The series folder that the mirror was made for."""
CHECKOUT: Final = None if DATA == _CARRIED else PACKAGES
"""The checkout; None where the program was installed from a wheel."""

_USER: Final = platformdirs.PlatformDirs("kvmirror", appauthor=False)


def user_cache() -> Path:
    """Where builds are kept by default: kvmirror under $XDG_CACHE_HOME, else under ~/.cache."""
    return _USER.user_cache_path


def user_state() -> Path:
    """Where runs are kept by default: kvmirror under $XDG_STATE_HOME, else under ~/.local/state."""
    return _USER.user_state_path


def user_config() -> Path:
    """A user's settings are in kvmirror under $XDG_CONFIG_HOME, else under ~/.config."""
    return _USER.user_config_path
