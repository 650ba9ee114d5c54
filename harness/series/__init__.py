"""A patch series: a folder of patches, read, checked and applied; and the plain form of a mail that it keeps."""

from harness.series import diff, folder, git, leaving_out, mail, parameter, pinned, whole
from harness.series.authors import authors
from harness.series.folder import Offset, Patch, Series, State, base_state, level_state, states
from harness.series.git import GitTree
from harness.series.leaving_out import How, Variant
from harness.series.mail import Hunk, Mail, parse_diff
from harness.series.parameter import Parameter
from harness.series.words import flattened, harmless

__all__ = [
    "GitTree",
    "How",
    "Hunk",
    "Mail",
    "Offset",
    "Parameter",
    "Patch",
    "Series",
    "State",
    "Variant",
    "authors",
    "base_state",
    "diff",
    "flattened",
    "folder",
    "git",
    "harmless",
    "leaving_out",
    "level_state",
    "mail",
    "parameter",
    "parse_diff",
    "pinned",
    "states",
    "whole",
]
