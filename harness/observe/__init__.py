"""What happened: vectors run by the probe under QEMU, by the small client, or on the bare CPU, and read back."""

from harness.observe import bare, batch, client, livelock, qemu, session, tracepoints
from harness.observe.batch import Observation, pack
from harness.observe.l1 import Seen, qemu_facts, virtual_cpu
from harness.observe.livelock import LIVELOCK_EXITS
from harness.observe.qemu import arguments
from harness.observe.session import Deadly, Session, parameters
from harness.observe.tracepoints import Traced

__all__ = [
    "LIVELOCK_EXITS",
    "Deadly",
    "Observation",
    "Seen",
    "Session",
    "Traced",
    "arguments",
    "bare",
    "batch",
    "client",
    "livelock",
    "pack",
    "parameters",
    "qemu",
    "qemu_facts",
    "session",
    "tracepoints",
    "virtual_cpu",
]
