"""Machines that run KVM, the emulated one and those of a lab: switched on, reached, their modules loaded."""

from harness.hosts import address, board, boot, models
from harness.hosts.base import Host
from harness.hosts.board import BOARD, Board
from harness.hosts.booted import KernelImage
from harness.hosts.channel import CommandResult, Remote
from harness.hosts.console import WARNING, Warn
from harness.hosts.coordinator import release_all
from harness.hosts.cpuinfo import Capabilities
from harness.hosts.emulated import BIOS, BOOT_TIMEOUT, IPS, VGABIOS, EmulatedHost
from harness.hosts.kvm_modules import ModuleFiles, Parameters
from harness.hosts.lab import Lab
from harness.hosts.models import Model
from harness.hosts.transport import FILES

__all__ = [
    "BIOS",
    "BOARD",
    "BOOT_TIMEOUT",
    "FILES",
    "IPS",
    "VGABIOS",
    "WARNING",
    "Board",
    "Capabilities",
    "CommandResult",
    "EmulatedHost",
    "Host",
    "KernelImage",
    "Lab",
    "Model",
    "ModuleFiles",
    "Parameters",
    "Remote",
    "Warn",
    "address",
    "board",
    "boot",
    "models",
    "release_all",
]
