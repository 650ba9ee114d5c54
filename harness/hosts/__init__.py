"""Machines that run KVM, the emulated one and those of a lab: switched on, reached, their modules loaded."""

from harness.hosts import address, boot
from harness.hosts.base import Host
from harness.hosts.channel import CommandResult, Remote
from harness.hosts.console import WARNING, Warn
from harness.hosts.coordinator import release_all
from harness.hosts.cpuinfo import CpuInfo
from harness.hosts.emulated import BIOS, CPU_WITH_MBEC, CPU_WITHOUT_MBEC, IPS, VGABIOS, EmulatedHost
from harness.hosts.kvm_modules import ModuleFiles, Parameters
from harness.hosts.lab import Lab
from harness.hosts.transport import FILES

__all__ = [
    "BIOS",
    "CPU_WITHOUT_MBEC",
    "CPU_WITH_MBEC",
    "FILES",
    "IPS",
    "VGABIOS",
    "WARNING",
    "CommandResult",
    "CpuInfo",
    "EmulatedHost",
    "Host",
    "Lab",
    "ModuleFiles",
    "Parameters",
    "Remote",
    "Warn",
    "address",
    "boot",
    "release_all",
]
