"""What a reviewer asks of each patch: does it apply, does it build alone, whose machine code does it change."""

from harness.review import check, identity
from harness.review.elf import SHF_ALLOC, SHF_EXECINSTR, Elf
from harness.review.versions import Versions

__all__ = [
    "SHF_ALLOC",
    "SHF_EXECINSTR",
    "Elf",
    "Versions",
    "check",
    "identity",
]
