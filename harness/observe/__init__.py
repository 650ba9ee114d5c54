"""What happened: vectors run by the probe under QEMU, by the small client, or on the bare CPU, and read back."""

from harness.observe import bare, batch, client, cut, livelock, matching, qemu, reports, warns
from harness.observe.batch import Observation, pack
from harness.observe.cut import Traced
from harness.observe.l1 import Seen, hurried, qemu_facts, virtual_cpu
from harness.observe.livelock import LIVELOCK_EXITS
from harness.observe.qemu import arguments
from harness.observe.reports import Reported
from harness.observe.session import (
    FIRST_FETCH,
    TROUBLE,
    Deadly,
    Session,
    cannot_run,
    module_options,
    sampled,
    spared_beside,
    spared_outcome,
    traced_beside,
)

__all__ = [
    "FIRST_FETCH",
    "LIVELOCK_EXITS",
    "TROUBLE",
    "Deadly",
    "Observation",
    "Reported",
    "Seen",
    "Session",
    "Traced",
    "arguments",
    "bare",
    "batch",
    "cannot_run",
    "client",
    "cut",
    "hurried",
    "livelock",
    "matching",
    "module_options",
    "pack",
    "qemu",
    "qemu_facts",
    "reports",
    "sampled",
    "spared_beside",
    "spared_outcome",
    "traced_beside",
    "virtual_cpu",
    "warns",
]
