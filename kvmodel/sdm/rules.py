"""The contract's rules as data: what each is called, where the manual has it, what it says in our words.

Sections are those of Intel's SDM volume 3 (order number 325384, edition 080): paging in chapter 4, VM entries
in 27, exits in 28, EPT in 29, capability MSRs in appendix A.
A rule is printed beside every outcome it allows and beside every vector it puts aside.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvmodel.sdm.relations import SDM
from kvmodel.sdm.vm_entry import CHECKS


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: the manual's section and a sentence of ours."""

    section: str
    text: str


RULES: dict[str, Rule] = {
    # --- what the EPT walk ends in ---
    "ept-permitted": Rule("29.3.3", "Every entry used is present and legal and together they permit the access."),
    "ept-not-present": Rule(
        "29.3.3.2",
        "An entry with bits 2:0 clear (with MBEC bit 10 too) is not present: EPT violation at that entry, "
        "qualification bits 6:3 clear.",
    ),
    "ept-permission": Rule(
        "29.3.3.2", "The permissions of all entries used, ANDed, lack what the access needs: EPT violation."
    ),
    "ept-write-without-read": Rule("29.3.3.1", "A present entry with bit 0 clear and bit 1 set is misconfigured."),
    "ept-execute-without-read": Rule(
        "29.3.3.1",
        "Without execute-only translations (MSR 0x48C bit 0), an entry with bit 0 clear and bit 2, or with MBEC "
        "bit 10, set is misconfigured.",
    ),
    "ept-reserved": Rule("29.3.3.1", "A present entry with a reserved bit set is misconfigured."),
    "ept-memory-type": Rule("29.3.3.1", "A present leaf whose bits 5:3 are 2, 3 or 7 is misconfigured."),
    # --- what may be remembered from one access to the next ---
    "cached-translation": Rule(
        "29.4.2",
        "Until INVEPT, or an EPT violation at the address, a CPU may go by a translation that it cached when the "
        "entries were other, or EPTP bit 6 or mode-based execute control.",
    ),
    # --- the instructions of programs ---
    "ept-flags": Rule(
        "29.3.5",
        "With EPTP bit 6 the CPU sets the accessed flag of each EPT entry that it uses, and the dirty flag of the one "
        "that maps a page which it writes; without it no flag changes, nor does any other bit.",
    ),
    "guest-flags": Rule(
        "4.8",
        "The CPU sets the accessed flag of each paging-structure entry that it uses, and the dirty flag of the one "
        "that maps a page which it writes; no other bit changes.",
    ),
    "program-unreached": Rule("28.1", "L2 exited before it came to this access."),
    "invalidation-done": Rule("31.3", "The operands are legal: the CPU forgets what they name."),
    "invalidation-undefined": Rule(
        "31.3", "INVEPT or INVVPID that MSRs 0x48B and 0x48C do not offer is an invalid opcode (#UD)."
    ),
    "invept-operand": Rule(
        "31.3",
        "INVEPT of an unsupported type, or of type 1 with an EPT pointer that VM entry refuses: VMfail, error 28.",
    ),
    "invvpid-operand": Rule(
        "31.3",
        "INVVPID of an unsupported type, with reserved bits set, with VPID 0 but for all contexts, or of type 0 with "
        "an address that is not canonical: VMfail, error 28.",
    ),
    "vmcs-done": Rule("31.3", "The instruction's operand is legal: it completes."),
    "vmcs-value": Rule("31.3", "VMREAD of a field that was written gives what its width keeps of that."),
    "vmcs-address": Rule(
        "31.4",
        "VMCLEAR (error 2) or VMPTRLD (error 9) of an address that is not a page's or beyond MAXPHYADDR: VMfail.",
    ),
    "vmcs-vmxon": Rule("31.4", "VMCLEAR (error 3) or VMPTRLD (error 10) of the VMXON region: VMfail."),
    "vmcs-revision": Rule("31.4", "VMPTRLD of a region with another revision identifier: VMfail, error 11."),
    "vmcs-launch-state": Rule(
        "31.4",
        "VMLAUNCH of a VMCS that is not clear (error 4), VMRESUME of one that is not launched (error 5): VMfail.",
    ),
    "vmcs-none": Rule("31.2", "Without a current VMCS there is no error number to read: VMfailInvalid."),
    "vmcs-field": Rule("31.4", "VMREAD or VMWRITE of a field that is not there: VMfail, error 12."),
    "vmcs-read-only": Rule("31.4", "VMWRITE of a read-only field where MSR 0x485 bit 29 is 0: VMfail, error 13."),
    # --- what of the qualification is defined ---
    "undefined-bit6": Rule("28.2.1", "Qualification bit 6 is undefined without mode-based execute control."),
    "undefined-advanced": Rule(
        "28.2.1",
        "Qualification bits 11:9 are undefined unless bits 7 and 8 are set and MSR 0x48C bit 22 is.",
    ),
    "specific-rmw-bit0": Rule(
        "28.2.1", "Whether a read-modify-write also reports a read (bit 0) is the implementation's choice."
    ),
    "specific-update-bit0": Rule(
        "28.2.1", "Whether an accessed or dirty update also reports a read (bit 0) is the implementation's choice."
    ),
    "undefined-misconfig": Rule(
        "28.2.1", "A misconfiguration leaves exit qualification and guest-linear address undefined."
    ),
    # --- the host's own rule, against machine checks on a change of page size ---
    "host-nx-spte": Rule(
        "Linux admin-guide/hw-vuln/multihit",
        "With nx_huge_pages forced no EPT entry for a page larger than 4 KiB lets a guest execute: bit 2 is clear, "
        "and bit 10 where the CPU runs the guest with mode-based execute control.",
    ),
    # --- the host's own rule on what it removes ---
    "host-removed-entry": Rule(
        "29.3.2",
        "What KVM removes is not present for a CPU that walks the table before the TLBs are flushed: bits 2:0 are "
        "clear, and bit 10 where the CPU runs the guest with mode-based execute control.",
    ),
    # --- the host's own rule on what its user set ---
    "host-parameter-kept": Rule(
        "Linux admin-guide/kernel-parameters",
        "What a user sets of a module that stays loaded holds until the module goes: kvm.ko keeps its parameter "
        "whatever kvm-intel.ko is loaded with meanwhile, as it does that of MMIO caching.",
    ),
    # --- guest paging ---
    "guest-protection": Rule("4.6", "The guest's own paging forbids the access: #PF with P set."),
    "guest-permitted": Rule("4.6", "The guest's own paging permits the access."),
    "guest-not-present": Rule("4.7", "A guest entry with P clear: #PF with P clear."),
    "guest-reserved": Rule("4.7", "XD set with EFER.NXE clear is a reserved bit: #PF with RSVD and P set."),
    "guest-fault-before-final-page": Rule(
        "29.3.3.2", "A page fault of the guest's paging comes before any EPT check of the page it would reach."
    ),
    "guest-accessed-before-fault": Rule(
        "4.8", "An accessed flag may be set by a walk whose access the permissions then deny: either comes first."
    ),
    "guest-pdpte": Rule(
        "4.4.1",
        "A MOV to a control register that would load a PDPTE with P and a reserved bit set is #GP(0) and loads none.",
    ),
    "exit-cr3": Rule("25.1.3", "With CR3-load exiting a MOV to CR3 of what is no CR3-target value exits."),
    "exit-saves-cr3": Rule("28.3.1", "A VM exit saves CR3 into the guest-state area: what L2 loaded last."),
    "exit-saves-pdptes": Rule(
        "28.3.4",
        "With EPT and a guest in PAE paging a VM exit saves the PDPTEs that the CPU holds into the guest-state area.",
    ),
    "exit-wrmsr": Rule("25.1.3", "WRMSR exits without an MSR bitmap, and where the MSR's bit for writes is 1."),
    # --- VM entry, controls, MSRs ---
    "entry-mbec-needs-ept": Rule("27.2.1.1", "Mode-based execute control without enable EPT: VMfail, error 7."),
    "entry-unrestricted-needs-ept": Rule("27.2.1.1", "Unrestricted guest without enable EPT: VMfail, error 7."),
    "entry-control-not-allowed": Rule(
        "27.2.1.1", "A secondary control set that MSR 0x48B does not allow to be 1: VMfail, error 7."
    ),
    "entry-eptp-ad": Rule(
        "27.2.1.1", "EPTP bit 6 set on a CPU without accessed and dirty flags for EPT (MSR 0x48C bit 21): error 7."
    ),
    **{name: Rule(check.section, check.text) for name, check in CHECKS.items()},
    "entry-msr-loading": Rule("27.4", "An entry of the VM-entry MSR-load area that cannot be loaded: exit reason 34."),
    "entry-succeeds": Rule("27.3", "Controls, host state and guest state are legal: the guest runs."),
    # --- what an exit tells ---
    "exit-reason": Rule(
        "26.1.3", "The instruction, event or window exits, or does not, as controls, bitmaps and shadows say."
    ),
    "exit-interruption": Rule(
        "28.2.2", "Interruption information has type, vector and error code of the event that exits; else bit 31 is 0."
    ),
    "exit-vectoring": Rule(
        "28.2.4", "IDT-vectoring information has the event in whose delivery the exit came; else bit 31 is 0."
    ),
    "exit-rip": Rule("28.3.3", "RIP is that of the instruction that exits, or of the next one where none was begun."),
    "exit-length": Rule("28.2.5", "The instruction length is that of the instruction, or of the software event."),
    "exit-interruptibility": Rule("28.3.4", "Blocking is saved as it was; a completed instruction ends that by STI."),
    "exit-read-back": Rule(
        "26.3", "A control register is read as it is, but for the mask's bits, which are the read shadow's."
    ),
    "exit-saves-cr0": Rule("28.3.1", "CR0 is saved as it is; bits of the mask are as VM entry loaded them."),
    "exit-saves-cr4": Rule("28.3.1", "CR4 is saved as it is; bits of the mask are as VM entry loaded them."),
    "exit-saves-efer": Rule("28.3.1", "EFER is saved where its VM-exit control says so; else the field is untouched."),
    "exit-memory": Rule(
        "28.4", "Memory has what L2 wrote and, in the VM-exit MSR-store area, the values of its MSRs; nothing else."
    ),
    "exit-saves-timer": Rule(
        "28.3.4",
        "The preemption timer's value is saved where a VM-exit control says so; else the field is untouched.",
    ),
    "msr-value": Rule(
        "A.3.3",
        "Bits 31:0 of MSR 0x48B are 0; every capability in the other half may be missing: less is policy.",
    ),
    "msr-mbec-needs-ept": Rule(
        "A.3.3", "Without enable EPT neither mode-based execute control nor unrestricted guest may be advertised."
    ),
    "msr-ept-cap": Rule("A.10", "The reserved bits of MSR 0x48C are 0; every capability may be missing."),
    "msr-default1": Rule(
        "A.2", "A control of the default1 class reads 1 in both halves of MSRs 0x481 to 0x484: it must be 1 there."
    ),
    "msr-true-default1": Rule(
        "A.2", "A control of the default1 class may always be 1: bit 32 and up of MSRs 0x48D to 0x490 say so."
    ),
    "msr-vmfunc": Rule("A.11", "Of MSR 0x491 only bit 0 (EPTP switching) is a VM function; the others are 0."),
    "msr-absent": Rule("A.1", "The MSR does not exist on this CPU: reading it is #GP(0)."),
    # --- L1's own accesses ---
    "own-access": Rule("29.3", "EPT under L1 is invisible to it: an access that L1's own paging permits completes."),
    # --- what the host promises ---
    "host-nx-huge-pages": Rule(
        "-",
        "Where kvm.nx_huge_pages is forced no guest fetch is made through a large mapping: erratum iTLB multihit.",
    ),
    "host-dirty-log": Rule(
        "-", "A page that the guest wrote since dirty logging began, or since the log was read last, is in the log."
    ),
    "host-msr-taken": Rule("-", "A capability that user space took from a vCPU is no longer in the vCPU's MSR."),
    "host-log": Rule(
        "-",
        "Whatever a guest or its user does, the host's kernel has nothing to report of itself: no WARN, BUG or oops, "
        "nothing of lockdep, KASAN or UBSAN.",
    ),
    # --- put aside ---
    "na-not-architectural": Rule("-", "Asks the host or KVM's own interfaces: the manual has nothing to say."),
    "na-no-vmx": Rule("-", "The virtual CPU has no VMX: L1 cannot run an L2."),
    "na-no-ept": Rule("-", "The virtual CPU has no EPT: L1 cannot run the program's L2."),
    "na-walk-without-paging": Rule("-", "With paging off there is no walk of guest tables."),
    "na-needs-unrestricted-guest": Rule("-", "Paging off in L2 needs unrestricted guest, which L1 is not offered."),
    "na-capability-taken": Rule(
        "-", "User space took a capability from L1, and what rests on it need not have gone with it."
    ),
    "na-msrs-not-read": Rule("-", "What is asked rests on L1's capability MSRs, which nobody has read here."),
    "na-vmcs-undecided": Rule(
        "27.2", "A field holds what some CPUs define and others reserve, or whose checks are not described here."
    ),
    "na-exit-undecided": Rule(
        "28.2", "What L2 does then, or what its exit tells, the manual leaves open, or is not described here."
    ),
    "na-pdptes-undecided": Rule(
        "4.4.1",
        "The manual lists the bits of CR0 and CR4 whose change loads PDPTEs, and does not say that a change of another "
        "bit loads none; without EPT any VM entry loads them, also one after an interrupt.",
    ),
    "na-other-msr": Rule("-", "Only MSRs 0x481 to 0x484 and 0x48B to 0x491 are described here."),
}

RULES |= {f"caps-{name}": Rule(one.section, one.text) for name, one in SDM.items()}  # MSRs judged together
