"""A patch series: a folder of patches, read, checked and applied; and the plain form of a mail that it keeps."""

from harness.series import diff, folder, git, mail, parameter, pinned
from harness.series.folder import Applied, Offset, Patch, Series, State, base_state, level_state, states
from harness.series.git import Tree
from harness.series.mail import Hunk, Mail, parse_diff
from harness.series.parameter import Parameter
from harness.series.words import flattened, harmless

__all__ = [
    "Applied",
    "Hunk",
    "Mail",
    "Offset",
    "Parameter",
    "Patch",
    "Series",
    "State",
    "Tree",
    "base_state",
    "diff",
    "flattened",
    "folder",
    "git",
    "harmless",
    "level_state",
    "mail",
    "parameter",
    "parse_diff",
    "pinned",
    "states",
]
