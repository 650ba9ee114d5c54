"""A run in a file: what was observed and what it was made of, to be judged again anywhere."""

from harness.recording import container, shapes
from harness.recording.container import is_recording
from harness.recording.making import of_run, write
from harness.recording.replaying import PROVENANCE, replayed

__all__ = [
    "PROVENANCE",
    "container",
    "is_recording",
    "of_run",
    "replayed",
    "shapes",
    "write",
]
