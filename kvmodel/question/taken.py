"""Capabilities of VMX, each taken from L1 by a property of QEMU's virtual CPU: an environment each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PIN, PROC, EXIT, ENTRY = 0x481, 0x482, 0x483, 0x484
BASIC: Final = 0x480
MISC: Final = 0x485
PROC2: Final = 0x48B
EPT_VPID: Final = 0x48C


@dataclass(frozen=True, slots=True)
class Taken:
    """A property of QEMU's CPU, and what it stands for: a VMX capability MSR and a bit of it.

    Of the MSRs of controls (plain forms 0x481 to 0x484, and 0x48B) ``bit`` is that of the control, 31 to 0, which may
    not be 1 then, or, where the property says that it may be 0 (``noexit``, ``nosave``, ``noload``), not be 0; of the
    others it is a bit of the MSR.
    """

    name: str
    msr: int
    bit: int
    also: tuple[int, ...] = ()  # further bits that the property takes

    @property
    def bits(self) -> tuple[int, ...]:
        """All bits that it takes."""
        return (self.bit, *self.also)

    @property
    def env(self) -> str:
        """The name of the environment."""
        return "no_" + self.name.removeprefix("vmx-").replace("-", "_")


TAKEN: Final = (
    Taken("vmx-true-ctls", BASIC, 55),
    Taken("vmx-ins-outs", BASIC, 54),
    Taken("vmx-any-errcode", BASIC, 56),
    Taken("vmx-vnmi", PIN, 5),
    Taken("vmx-preemption-timer", PIN, 6),
    Taken("vmx-vintr-pending", PROC, 2),
    Taken("vmx-tsc-offset", PROC, 3),
    Taken("vmx-hlt-exit", PROC, 7),
    Taken("vmx-invlpg-exit", PROC, 9),
    Taken("vmx-rdtsc-exit", PROC, 12),
    Taken("vmx-cr3-load-noexit", PROC, 15),
    Taken("vmx-cr8-load-exit", PROC, 19),
    Taken("vmx-flexpriority", PROC, 21),
    Taken("vmx-vnmi-pending", PROC, 22),
    Taken("vmx-movdr-exit", PROC, 23),
    Taken("vmx-io-bitmap", PROC, 25),
    Taken("vmx-mtf", PROC, 27),
    Taken("vmx-msr-bitmap", PROC, 28),
    Taken("vmx-secondary-ctls", PROC, 31),
    Taken("vmx-exit-nosave-debugctl", EXIT, 2),
    Taken("vmx-exit-load-perf-global-ctrl", EXIT, 12),
    Taken("vmx-exit-save-pat", EXIT, 18),
    Taken("vmx-exit-load-pat", EXIT, 19),
    Taken("vmx-exit-save-efer", EXIT, 20),
    Taken("vmx-exit-save-preemption-timer", EXIT, 22),
    Taken("vmx-exit-clear-bndcfgs", EXIT, 23),
    Taken("vmx-entry-noload-debugctl", ENTRY, 2),
    Taken("vmx-entry-ia32e-mode", ENTRY, 9),
    Taken("vmx-entry-load-perf-global-ctrl", ENTRY, 13),
    Taken("vmx-entry-load-pat", ENTRY, 14),
    Taken("vmx-entry-load-bndcfgs", ENTRY, 16),
    Taken("vmx-store-lma", MISC, 5),
    Taken("vmx-activity-hlt", MISC, 6),
    Taken("vmx-vmwrite-vmexit-fields", MISC, 29),
    Taken("vmx-zero-len-inject", MISC, 30),
    Taken("vmx-apicv-xapic", PROC2, 0),
    Taken("vmx-ept", PROC2, 1),
    Taken("vmx-desc-exit", PROC2, 2),
    Taken("vmx-rdtscp-exit", PROC2, 3),
    Taken("vmx-vpid", PROC2, 5),
    Taken("vmx-wbinvd-exit", PROC2, 6),
    Taken("vmx-unrestricted-guest", PROC2, 7),
    Taken("vmx-invpcid-exit", PROC2, 12),
    Taken("vmx-vmfunc", PROC2, 13),
    Taken("vmx-shadow-vmcs", PROC2, 14),
    Taken("vmx-pml", PROC2, 17),
    Taken("vmx-xsaves", PROC2, 20),
    Taken("vmx-tsc-scaling", PROC2, 25),
    Taken("vmx-page-walk-4", EPT_VPID, 6),
    Taken("vmx-ept-2mb", EPT_VPID, 16),
    Taken("vmx-ept-1gb", EPT_VPID, 17),
    Taken("vmx-invept", EPT_VPID, 20),
    Taken("vmx-eptad", EPT_VPID, 21),
    Taken("vmx-ept-advanced-exitinfo", EPT_VPID, 22),
    Taken("vmx-invept-single-context", EPT_VPID, 25, also=(41,)),  # QEMU calls two bits so
    Taken("vmx-invept-all-context", EPT_VPID, 26),
    Taken("vmx-invvpid", EPT_VPID, 32),
    Taken("vmx-invvpid-single-addr", EPT_VPID, 40),
    Taken("vmx-invvpid-all-context", EPT_VPID, 42),
)
