"""b4's library, for what it knows best: tags of subjects, threads, revisions of a series and rerolls of one patch.

It is used offline and on mails that were read already: b4 gets their headers in a plain form and a diff of two lines,
so that it sees a patch where there is one. Nothing of the user's configuration is read, no program is started, no
network is asked, and Python's ``email`` package encodes afterwards as it did before.
"""

from __future__ import annotations

import contextlib
import email.charset
import email.message
import email.policy
import email.utils
import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    """Both libraries register another encoding for UTF-8 when they are imported."""
    kept = dict(email.charset.CHARSETS)
    try:
        yield
    finally:
        email.charset.CHARSETS.clear()
        email.charset.CHARSETS.update(kept)


with _as_before():
    import b4
    from liblore.series import PatchSubject, group_by_thread, parse_patch_subject

__all__ = ["PatchSubject", "Slip", "parse_patch_subject", "rerolled", "revisions", "seconds", "threads"]


@dataclass(frozen=True, slots=True)
class Slip:
    """b4 is told this of a mail: its Message-ID, the ones it names as its parents (the direct one first), who sent it,
    when, where it stands (``number`` of ``total`` of ``version``; None where that is not said), its title, and whether
    it has a diff.
    """

    message_id: str
    parents: tuple[str, ...]
    sender: str
    date: str
    version: int | None
    number: int | None
    total: int | None
    title: str
    diff: bool

    def message(self) -> email.message.EmailMessage:
        """b4 gets this mail."""
        made = email.message.EmailMessage(policy=email.policy.compat32)
        made["Message-ID"] = f"<{self.message_id}>"
        made["From"] = f"<{re.sub('[^!-;=?-~]', '_', self.sender)}>"
        if self.date:
            made["Date"] = self.date
        if self.parents:
            made["In-Reply-To"] = f"<{self.parents[0]}>"
            made["References"] = " ".join(f"<{parent}>" for parent in reversed(self.parents))
        place = f" {self.number}/{self.total}" if self.number is not None else ""
        made["Subject"] = f"[PATCH{'' if self.version is None else f' v{self.version}'}{place}] {self.title}"
        body = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-x\n+y\n" if self.diff else " 1 file changed, 1 insertion(+)\n"
        made.set_payload(body)
        return made


class _Message(b4.LoreMessage):
    """A mail for whose patch b4 does not start ``git patch-id``: its diff is none."""

    @property
    def git_patch_id(self) -> str | None:
        """Always None."""
        return None


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    logger = logging.getLogger("b4")
    network, said, mail = b4.can_network, logger.disabled, b4.LoreMessage
    b4.can_network, logger.disabled = False, True
    vars(b4)["LoreMessage"] = _Message
    try:
        yield
    finally:
        b4.can_network, logger.disabled = network, said
        vars(b4)["LoreMessage"] = mail


def threads(slips: Sequence[Slip]) -> list[list[str]]:
    """The function gives the Message-IDs of each thread, oldest mail first."""
    groups = group_by_thread([slip.message() for slip in slips])
    return [[str(message["Message-ID"]).strip("<>") for message in group] for group in groups]


def _box(slips: Sequence[Slip]) -> b4.LoreMailbox:
    box = b4.LoreMailbox()
    for slip in sorted(slips, key=lambda s: (s.diff, s.version or 1, s.number or 0)):  # b4 looks back, not ahead
        box.add_message(slip.message())
    return box


def revisions(slips: Sequence[Slip]) -> dict[str, int]:
    """The function gives the version of each patch by its Message-ID, where one that does not say its own answers a
    cover or a first patch that does.
    """
    with _offline():
        return {message_id: mail.revision for message_id, mail in _box(slips).msgid_map.items()}


def rerolled(slips: Sequence[Slip], version: int) -> list[str] | None:
    """The Message-IDs of the patches of ``version`` in order, where it was sent only in part: the others are those of
    the version before, to which the new ones are answers. None where b4 cannot put them together."""
    with _offline():
        series = _box(slips).get_series(version, codereview_trailers=False)
    if series is None or not series.complete or not series.partial_reroll:
        return None
    return [patch.msgid for patch in series.patches[1:] if patch is not None]


def day(date: str) -> str:
    """The function gives the day of a mail's date, as 2025-03-13; it is empty where there is none."""
    return time.strftime("%Y-%m-%d", time.gmtime(at)) if (at := seconds(date)) else ""


def seconds(date: str) -> float:
    """The function gives a mail's date as seconds since 1970; 0 where there is none."""
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
