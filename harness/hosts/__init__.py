"""Machines that run KVM, the emulated one and those of a lab: switched on, reached, their modules loaded."""

from harness.hosts import address, boot
from harness.hosts.base import FILES, CommandResult, Host, ModuleFiles, Parameters, Remote
from harness.hosts.console import WARNING, Warn
from harness.hosts.cpuinfo import CpuInfo
from harness.hosts.emulated import BIOS, CPU_WITH_MBEC, CPU_WITHOUT_MBEC, IPS, VGABIOS, EmulatedHost
from harness.hosts.lab import Lab

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
]
