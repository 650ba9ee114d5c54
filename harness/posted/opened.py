"""The series that a command line names: a folder (ours by default), and below it what it stands on."""

from __future__ import annotations

import tempfile
from pathlib import Path

from harness.build import kernel
from harness.series import Series, folder


def opened(series: Path | None, on: str | None = None, linux: kernel.Linux | None = None) -> Series:
    """The function gives the series of the folder ``series`` (None: ours) on the patches of ``on``.

    ``on`` is a series folder, an mbox or a folder of mails, or a range A..B of the git tree ``linux``.

    Raises what ``folder.read`` and ``bring.bring_in`` raise: SeriesError and InputError.
    """
    made = folder.read(series) if series is not None else folder.read()
    return made if on is None else folder.standing_on(made, _below(on, linux))


def _below(on: str, linux: kernel.Linux | None) -> Series:
    from harness.posted import bring  # b4 takes a third of a second to load: only mails pay for it

    if (Path(on).expanduser() / folder.INDEX).is_file():
        return folder.read(Path(on))
    tree = linux if isinstance(linux, Path) else None  # a tarball's or Debian's source has no commits
    with tempfile.TemporaryDirectory(prefix="kvmirror-on-") as place:
        return bring.bring_in(on, Path(place) / "on", linux=tree).series
