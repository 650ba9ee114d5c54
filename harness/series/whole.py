"""A folder that is there whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import InputError


@contextmanager
def made(target: Path) -> Iterator[Path]:
    """The block fills a folder beside ``target``, which takes its place when the block ends; a failure leaves nothing.

    Raises InputError when the folder cannot be made.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name[:60]}-", dir=target.parent))
    except OSError as error:
        raise InputError(f"{target} cannot be made: {error.strerror}; name another folder") from error
    try:
        yield work
        work.chmod(0o755)
        if target.exists():
            target.rmdir()
        work.rename(target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
