"""A guest that somebody else runs, watched: KVM's tracepoints for a while, judged by manual and mirror."""

from harness.passive import judging, saving
from harness.passive.capture import Capture, Limits, capture

__all__ = [
    "Capture",
    "Limits",
    "capture",
    "judging",
    "saving",
]
