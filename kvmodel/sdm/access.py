"""What an access is to the EPT walk: its use, and what guest paging made of its linear address."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Use(Enum):
    """For what a guest-physical address is translated."""

    READ = "read"
    WRITE = "write"
    RMW = "rmw"  # read-modify-write
    FETCH = "fetch"
    WALK = "walk"  # reading a guest paging-structure entry
    UPDATE = "update"  # setting accessed or dirty in one

    @property
    def is_structure(self) -> bool:
        """Whether the address is that of a guest paging-structure entry."""
        return self in (Use.WALK, Use.UPDATE)


@dataclass(frozen=True, slots=True)
class Linear:
    """What guest paging says of the linear address behind an access.

    ``user``: U/S set at every level, the user-mode linear addresses of MBEC; ``writable``: R/W set at every
    level; ``execute_disable``: XD set at any. With paging off every linear address is a user-mode one, writable
    and executable (SDM 28.2.1, notes on bits 9-11).
    """

    user: bool = True
    writable: bool = True
    execute_disable: bool = False


PAGING_OFF = Linear()
