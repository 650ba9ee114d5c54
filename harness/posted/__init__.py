"""A series as it was posted, made into a folder: mails opened, threads and versions sorted out, ranges of commits."""

from harness.posted import bring, letter

__all__ = [
    "bring",
    "letter",
]
