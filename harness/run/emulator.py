"""The emulator as runs use it: compiled for what it is about to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.build import Cache, bochs, probe
from harness.observe import bare
from harness.questions import core

EVERY: Final = 8  # of the core's vectors one in so many is asked of the bare CPU for a profile


def build(cache: Cache, mended: bool = True, without: Sequence[str] = ()) -> Path:
    """The function gives the emulator's binary, made faster by a profile of the probe on its bare CPU; the one with
    errata is as it comes. ``without`` names what its CPUs are not to have.

    Raises FetchError when the source is not to be had.
    Raises BuildError when it does not compile.
    Raises HostError when what was built does not run.
    """
    if not mended:
        return bochs.build(cache, mended, without=without)
    return bochs.build(
        cache,
        mended,
        lambda binary: bare.run(binary, probe.build(cache), [v for v in core.core() if bare.askable(v)][::EVERY]),
        without=without,
    )
