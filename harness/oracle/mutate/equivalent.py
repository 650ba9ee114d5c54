"""Mutants of the mirror that change no answer, each with the reason, as equivalent.toml has them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

_TABLE: Final = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
EQUIVALENT: Final[dict[str, str]] = {key: row["reason"] for row in _TABLE["because"] for key in row["mutants"]}
"""By ``Mutant.key``."""
