"""A series as it was posted, made into a folder: mails opened, threads and versions sorted out, ranges of commits.

``bring`` and ``letter`` are modules that load b4 and git's readers: whoever wants one imports it when it is wanted.
"""

from harness.posted.opened import opened

__all__ = [
    "bring",
    "letter",
    "opened",
]
