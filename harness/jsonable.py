"""What can be written as JSON: the type of what a report, a journal or a recording gives away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
"""One value. What is read back is checked by who reads it, and may be anything until then."""
