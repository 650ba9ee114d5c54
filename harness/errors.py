"""Whose fault it is: the exception tree behind the exit codes.

A message says what, why and what to do about it; the command line prints it as one line, without a traceback.
"""

from __future__ import annotations


class KvmirrorError(Exception):
    """Base of every failure this tool reports; ``exit_code`` is the process's exit status."""

    exit_code = 4


class InputError(KvmirrorError):
    """The user's input: a level, an id, a series that does not apply or does not compile. Exit code 2."""

    exit_code = 2


class SeriesError(InputError):
    """A series file or patch that is broken, unsafe or does not apply."""


class CompileError(InputError):
    """A level that does not compile; carries the compiler's lines."""


class InfraError(KvmirrorError):
    """The machine, its network or a host failed. Exit code 4."""


class FetchError(InfraError):
    """A download failed, or its hash is not the pinned one."""


class BuildError(InfraError):
    """A build step failed for a reason that is not the series (tools, disk)."""


class HostError(InfraError):
    """A host that did not boot, panicked, hung, or went away; carries the last lines of its console."""


class GuestError(InfraError):
    """QEMU or the probe did not do what the protocol says."""
