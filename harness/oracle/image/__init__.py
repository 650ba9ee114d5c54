"""The kernel's own C of a level as an image that a child process maps and calls."""

from harness.oracle.image import levels
from harness.oracle.image.levels import Prepared
from harness.oracle.image.worker import EventKind, Image, ImageWorker, Results

__all__ = [
    "EventKind",
    "Image",
    "ImageWorker",
    "Prepared",
    "Results",
    "levels",
]
