"""What a run says of the series it was made of: a row a patch, from the run's provenance.

``provenance["patches"]`` is a list in the series' order; an item is an object with any of ``number``, ``subject``,
``author``, ``message_id``, ``claim``, ``sha256``, ``applies``, ``builds``, ``identity``, or the patch's hash alone.
What a run of the MBEC series did not write down is taken from ``kvmodel.series``; what nobody knows stays empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from harness.results import LEFT_OUT, Said
from kvmodel import series

NOT_RECORDED: Final = Said()


@dataclass(slots=True)
class PatchRow:
    """The row is of one patch: what it is, whether it applies and builds, and what the run saw of it."""

    number: int
    subject: str = ""
    author: str = ""
    message_id: str = ""
    sha256: str = ""
    claims_no_change: bool = False
    applies: Said = NOT_RECORDED
    builds: Said = NOT_RECORDED
    identity: Said = NOT_RECORDED  # of the object code with the level below
    ran: bool = False  # its level is in the run
    changes: int | None = None  # vectors whose answer differs from the level below; None: nothing to compare with
    compared_with: int | None = None  # that level; a gap means the changes belong to all patches between
    first_seen: list[str] = field(default_factory=list)  # findings that this level is the first to show
    caused: list[str] = field(default_factory=list)  # findings that go away without this patch
    drift: int = 0
    left_out: list[str] = field(default_factory=list)  # vectors and cases of the kernel's C that change without it

    @property
    def broken_claim(self) -> bool:
        """The patch says that it changes nothing, and the run saw a change that is its own: True."""
        return self.claims_no_change and bool(self.changes) and self.compared_with == self.number - 1

    @property
    def claim_text(self) -> str:
        """The text tells what became of what the patch says of itself; it is empty where its level did not run next to
        the one below.
        """
        if self.changes is None or self.compared_with != self.number - 1:
            return ""
        if self.claims_no_change:
            seen = f"{self.changes} vectors changed: claim broken" if self.changes else "none was seen: it holds"
            return f"claims no functional change, and {seen}"
        return "" if self.changes else "does not claim to change nothing, and no change was seen"

    @property
    def state(self) -> str:
        """The state is ``fail``, ``warn`` or ``pass`` in one word, ``none`` where its level did not run."""
        if self.applies.holds is False or self.builds.holds is False:
            return "fail"
        if self.caused or self.broken_claim:
            return "fail"
        if self.first_seen or self.drift:
            return "warn"
        return "pass" if self.ran else "none"


def _is_mbec(found: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the run is of the series that ``kvmodel.series`` holds, as far as the run itself says."""
    if len(found) > series.LAST:
        return False
    for number, item in enumerate(found, 1):
        known = series.patch(number)
        subject = item.get("subject")
        if subject is not None and known.subject not in str(subject):
            return False
        if "message_id" in item and item["message_id"] and str(item["message_id"]).strip("<>") != known.message_id:
            return False
    return True


def patch_rows(provenance: Mapping[str, Any], last_level: int) -> list[PatchRow]:
    """The function gives the series' rows; where the run wrote no patches down, those of the MBEC series up to its last
    level.
    """
    raw = provenance.get("patches")
    if isinstance(raw, dict):
        ordered = sorted(raw.items(), key=lambda kv: int(kv[0]) if str(kv[0]).isdigit() else 0)
        raw = [value if isinstance(value, dict) else {"sha256": value} for _, value in ordered]
    items = [item if isinstance(item, dict) else {"sha256": str(item)} for item in raw or []]
    mbec = _is_mbec(items)
    if not items:
        items = [{} for _ in range(min(last_level, series.LAST))]
    rows = []
    for number, item in enumerate(items, 1):
        known = series.patch(number) if mbec else None
        claim = str(item.get("claim", "")).lower()
        rows.append(
            PatchRow(
                number=number,
                subject=str(item.get("subject") or (known.subject if known else "")),
                author=str(item.get("author") or (known.author if known else "")),
                message_id=str(item.get("message_id") or (known.message_id if known else "")).strip("<>"),
                sha256=str(item.get("sha256") or ""),
                claims_no_change=claim in ("stated", "implied")
                or (not claim and known is not None and known.claim is not series.Claim.NONE),
                applies=Said.read(item.get("applies")),
                builds=Said.read(item.get("builds")),
                identity=Said.read(item.get("identity")),
                left_out=[str(text) for text in provenance.get(LEFT_OUT, {}).get(item.get("sha256"), [])],
            )
        )
    return rows
