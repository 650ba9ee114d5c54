"""What happened: vectors run by the probe under QEMU, by the small client, or on the bare CPU, and read back."""

from harness.observe import bare, batch, client, qemu, tracepoints
from harness.observe.batch import pack
from harness.observe.l1 import Seen, virtual_cpu
from harness.observe.livelock import LIVELOCK_EXITS
from harness.observe.qemu import arguments
from harness.observe.session import Deadly, Session, module_options
from harness.observe.tracepoints import Traced

__all__ = [
    "LIVELOCK_EXITS",
    "Deadly",
    "Seen",
    "Session",
    "Traced",
    "arguments",
    "bare",
    "batch",
    "client",
    "module_options",
    "pack",
    "qemu",
    "tracepoints",
    "virtual_cpu",
]
