"""KVM's tracepoints switched on for the vectors that L1 marks, and read back.

L1 marks where a vector begins: CPUID of protocol MARK_LEAF, which the host traces.
"""

from __future__ import annotations

import re
from typing import Final

from harness import protocol
from harness.hosts import Host
from harness.observe.livelock import EPT_MISCONFIG, EPT_VIOLATION, TRACING

MARK_PORT: Final = protocol.CONSTANTS["MARK_PORT"]
MARK: Final = protocol.CONSTANTS["MARK_LEAF"]
FLAG_MARK: Final = protocol.CONSTANTS["FLAG_MARK"]
BUFFER: Final = 16384  # KiB of trace buffer
L1_CODE: Final = 0x400000  # bytes: the probe's own code lies below, L2's above
SPEAK_AGAIN: Final = "echo 1 >/sys/kernel/debug/clear_warn_once 2>/dev/null"
MARKING: Final = "kvm/kvm_cpuid"  # the event of which the probe's marks are
TRACED: Final = (MARKING, "kvm/kvm_exit", "kvm/kvm_nested_vmenter", "kvm/kvm_nested_vmexit",
                 "kvm/kvm_nested_vmexit_inject", "kvm/kvm_page_fault", "kvmmmu")  # fmt: skip
_EPT_EXITS: Final = f"exit_reason=={EPT_VIOLATION}||exit_reason=={EPT_MISCONFIG}"
_FILTERS: Final = {
    MARKING: f"function=={MARK:#x}",
    "kvm/kvm_exit": f"guest_rip<{L1_CODE:#x}&&({_EPT_EXITS})",
    "kvm/kvm_nested_vmexit": _EPT_EXITS,
}
_TRIGGERS: Final = {
    MARKING: f"traceon if function=={MARK:#x}",
    "kvm/kvm_pio": f"traceoff if port=={MARK_PORT:#x}",
}


def arm(host: Host) -> None:
    """Tracing takes what TRACED names, from the first mark to the vector that bears none."""
    script = [
        f"echo 0 >{TRACING}/tracing_on",
        f"echo 0 >{TRACING}/events/enable",
        f"echo {BUFFER} >{TRACING}/buffer_size_kb",
    ]
    script += [f"echo >{TRACING}/trace", SPEAK_AGAIN]
    script += [f"echo '{text}' >{TRACING}/events/{event}/filter" for event, text in _FILTERS.items()]
    script += [f"echo 1 >{TRACING}/events/{event}/enable" for event in TRACED]
    script += [f"echo '{text}' >{TRACING}/events/{event}/trigger" for event, text in _TRIGGERS.items()]
    host.run("; ".join(script), check=True)


def speak_again(host: Host) -> None:
    """Every WARN_ONCE may speak again."""
    host.run(SPEAK_AGAIN)


def arm_marks(host: Host) -> None:
    """Trace the probe's marks and nothing else; every WARN_ONCE may speak again."""
    script = [
        f"echo 0 >{TRACING}/tracing_on",
        f"echo 0 >{TRACING}/events/enable",
        f"echo {BUFFER} >{TRACING}/buffer_size_kb",
        f"echo >{TRACING}/trace",
        SPEAK_AGAIN,
        f"echo '{_FILTERS[MARKING]}' >{TRACING}/events/{MARKING}/filter",
        f"echo 1 >{TRACING}/events/{MARKING}/enable",
        f"echo 1 >{TRACING}/tracing_on",
    ]
    host.run("; ".join(script), check=True)


def disarm(host: Host) -> str:
    """Tracing is switched off; the function gives the buffer's text."""
    script = [f"echo 0 >{TRACING}/tracing_on", f"echo 0 >{TRACING}/events/enable"]
    script += [f"echo '!{text}' >{TRACING}/events/{event}/trigger" for event, text in _TRIGGERS.items()]
    script += [f"echo 0 >{TRACING}/events/{event}/filter" for event in _FILTERS]
    host.run("; ".join(script))
    return host.get(f"{TRACING}/trace").decode("utf-8", "replace")


_ACCESS_STR: Final = re.compile(r"access_str\[\] = \{([^}]*)\}")
FORMATS: Final = {"taccess": "kvm_mmu_get_page", "tspte": "kvm_mmu_set_spte"}


def format_texts(host: Host, what: str) -> list[str]:
    """The function gives what a HostVector of the formats asks for, from the loaded modules' own description of the
    event.
    """
    text = host.run(f"cat {TRACING}/events/kvmmmu/{FORMATS[what]}/format", check=True).stdout
    printed = text.partition("print fmt: ")[2]
    if what == "tspte":
        return re.findall(r'"([^"]*)"', printed)[:1]
    table = _ACCESS_STR.search(printed)
    return re.findall(r'"([^"]*)"', table[1]) if table else []
