"""KVM's modules on a machine: those of one level, with their parameters, loaded and removed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import HostError
from harness.hosts.transport import Connection


class ModuleFiles(Protocol):
    """What ``load`` takes (``harness.build.modules.Modules``): irqbypass is None where the kernel has it built in."""

    @property
    def irqbypass(self) -> Path | None:
        """This is irqbypass.ko; None where the kernel has it built in."""
        ...

    @property
    def kvm(self) -> Path:
        """This is kvm.ko."""
        ...

    @property
    def kvm_intel(self) -> Path:
        """This is kvm-intel.ko."""
        ...


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters are those of the modules. ``chosen`` are those of the series that is asked: module, name and value
    of each. ``chosen`` are those of the series that is asked: module, name and value of each.
    """

    chosen: tuple[tuple[str, str, str], ...] = ()
    ept: bool = True
    eptad: bool = True
    nx_huge_pages: bool = False
    shadow_vmcs: bool = True

    @property
    def kvm(self) -> str:
        """The function gives the parameters of kvm.ko."""
        return self._with("kvm", {"nx_huge_pages": "force" if self.nx_huge_pages else "off"})

    @property
    def kvm_intel(self) -> str:
        """The function gives the parameters of kvm-intel.ko. It is without APICv, unless that is chosen: the unmended
        emulator's VM entry wants a page-aligned posted-interrupt descriptor.
        """
        words = {"nested": "1", "enable_apicv": "0", "ept": str(int(self.ept)), "eptad": str(int(self.eptad))}
        return self._with("kvm_intel", words if self.shadow_vmcs else words | {"enable_shadow_vmcs": "0"})

    def _with(self, module: str, words: dict[str, str]) -> str:
        """``words``, and in their place or behind them what was chosen for ``module``."""
        chosen = {name: value for at, name, value in self.chosen if at == module}
        return " ".join(f"{name}={value}" for name, value in (words | chosen).items())


class KvmModules(Connection):
    """This is a machine that modules are loaded on."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: tuple[ModuleFiles, Parameters] | None = None

    def load(self, modules: ModuleFiles, parameters: Parameters) -> None:
        """KVM's modules of one level are loaded. Those of another level are unloaded first. Those of another level are
        unloaded first.

        Raises HostError when one is refused.
        """
        self.unload()
        for path, words in (
            (modules.irqbypass, ""),
            (modules.kvm, parameters.kvm),
            (modules.kvm_intel, parameters.kvm_intel),
        ):
            if path is None or not path.exists():  # irqbypass: built into the image
                continue
            done = self.run(f"insmod {self.deliver(path)} {words}", timeout=120)
            if done.status:
                log = self.run("dmesg | tail -n 5").stdout.strip()
                self.unload()
                raise HostError(
                    f"{self.name} refused {path.name} {words}: {done.stderr.strip()}; the kernel's log:\n{log}"
                )
        self.loaded = (modules, parameters)

    def reload_intel(self, modules: ModuleFiles, parameters: Parameters) -> None:
        """The module kvm-intel.ko is taken out and loaded again, the kvm.ko that is there staying.

        Raises HostError when it is refused.
        """
        self.run(f"rmmod kvm_intel && insmod {self.deliver(modules.kvm_intel)} {parameters.kvm_intel}", check=True)
        self.loaded = (modules, parameters)

    def unload(self) -> None:
        """KVM's modules are removed, if there are any.

        Raises HostError when something still uses them (QEMU).
        """
        done = self.run(
            "for m in kvm_intel kvm irqbypass; do "
            "[ ! -d /sys/module/$m/holders ] || [ ! -e /sys/module/$m/initstate ] || rmmod $m || exit 1; done",
            timeout=120,
        )
        self.loaded = None
        if done.status:
            raise HostError(
                f"{self.name}: KVM's modules cannot be removed: {done.stderr.strip()} (does a QEMU still run there?)"
            )
