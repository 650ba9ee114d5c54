"""The mirror held against the kernel's own C, function by function, and how sharp that is."""

from harness.oracle import hands
from harness.oracle.hands import serve

__all__ = [
    "hands",
    "serve",
]
