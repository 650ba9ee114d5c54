"""A patch series: a folder of patches, read, checked and applied; mails and commit ranges made into one."""

from harness.series import folder, leaving_out, mail, pinned, posted
from harness.series.authors import authors
from harness.series.folder import Offset, Patch, Series, State, base_state, level_state, states
from harness.series.leaving_out import How, Variant
from harness.series.mail import Hunk, Mail, parse_diff

__all__ = [
    "How",
    "Hunk",
    "Mail",
    "Offset",
    "Patch",
    "Series",
    "State",
    "Variant",
    "authors",
    "base_state",
    "folder",
    "leaving_out",
    "level_state",
    "mail",
    "parse_diff",
    "pinned",
    "posted",
    "states",
]
