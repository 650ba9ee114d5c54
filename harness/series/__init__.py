"""A patch series: a folder of patches, read, checked and applied; mails and commit ranges made into one."""

from harness.series import folder, mail, parameter, pinned, posted
from harness.series.folder import Applied, Offset, Patch, Series, State, base_state, level_state, states
from harness.series.mail import Hunk, Mail, parse_diff
from harness.series.opened import opened
from harness.series.parameter import Parameter

__all__ = [
    "Applied",
    "Hunk",
    "Mail",
    "Offset",
    "Parameter",
    "Patch",
    "Series",
    "State",
    "base_state",
    "folder",
    "level_state",
    "mail",
    "opened",
    "parameter",
    "parse_diff",
    "pinned",
    "posted",
    "states",
]
