"""The emulator's CPUs as they are found: what their MSRs say, and where they depart from the manual.

Nothing of it is known beforehand. The probe runs on the bare CPU of a model: its MSRs are what the mirror is told, and
the core's vectors show its errata. It takes seconds, once for each emulator, model, probe and edition of the contract.
Whoever boots a host of the model holds the host's own reading against it (``Bench.open_session``).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import kvmodel
from harness.build import Cache, sha256
from harness.errors import HostError
from harness.findings import causes
from harness.hosts import Capabilities, Model
from harness.observe import bare
from harness.questions import core
from harness.results import cpus
from harness.run.bare import KEY, ask

FILE: Final = "cpu.json"


@dataclass(frozen=True, slots=True)
class Processor:
    """This is a model as it was found on one emulator.

    ``errata`` are the known ones that it shows, ``unexplained`` counts departures from the manual that none explains.
    """

    model: Model
    capabilities: Capabilities
    errata: tuple[str, ...]
    unexplained: int

    def as_json(self) -> dict[str, Any]:
        """A run's provenance has it so."""
        told = {"model": self.model.name, "emulated_as": self.model.emulated_as}
        found = {"msrs": self.capabilities.as_json(), "errata": list(self.errata), "unexplained": self.unexplained}
        return told | cpus.as_json(self.capabilities.cpu()) | found


def read(cache: Cache, bochs: Path, probe: Path, model: Model) -> Processor:
    """The function gives the model as the emulator ``bochs`` has it.

    Raises HostError when that does not know it.
    """
    vectors = [v for v in core.core() if bare.askable(v)]

    def look(folder: Path) -> None:
        cell = ask(bochs, probe, model, vectors)
        errata, unexplained = causes.errata_of(((KEY, a) for a in cell.answers), cell.capabilities.cpu())
        body = {
            "msrs": cell.capabilities.as_json(),
            "maxphyaddr": cell.capabilities.maxphyaddr,
            "vmx": cell.capabilities.vmx,
            "errata": sorted(errata),
            "unexplained": unexplained,
        }
        (folder / FILE).write_text(json.dumps(body, indent=1))

    key = {
        "emulator": sha256(bochs),
        "probe": sha256(probe),
        "model": model.emulated_as,
        "asked": hashlib.sha256("\n".join(v.id for v in vectors).encode()).hexdigest(),
        "contract": _edition(),
    }
    body = json.loads((cache.entry("cpu", key, look, title=f"CPU {model} read") / FILE).read_text())
    msrs = {int(number, 16): int(value, 16) for number, value in body["msrs"].items()}
    capabilities = Capabilities(msrs, body["maxphyaddr"], body["vmx"])
    return Processor(model, capabilities, tuple(body["errata"]), body["unexplained"])


def _edition() -> str:
    """What the contract and its errata are now, and what is asked of a CPU that lacks something."""
    files = [*sorted((Path(kvmodel.__file__).parent / "sdm").rglob("*.py")), Path(bare.__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def agree(found: Processor, host: Capabilities, name: str) -> None:
    """The function takes the host that booted for one of its model, whose bare CPU said the same.

    Raises HostError when it says something else.
    """
    for number in sorted({*found.capabilities.msrs, *host.msrs}):
        bare_value, value = (side.msrs.get(number) for side in (found.capabilities, host))
        if bare_value != value:
            raise HostError(
                f"{name}: MSR {number:#x} is {_text(value)} on the host that runs, and {_text(bare_value)} on the bare "
                f"CPU {found.model}: what the mirror was told is not this host's CPU"
            )
    if found.capabilities != host:
        raise HostError(
            f"{name}: the host that runs has {host.maxphyaddr} address bits, the bare CPU {found.model} "
            f"{found.capabilities.maxphyaddr}: what the mirror was told is not this host's CPU"
        )


def _text(value: int | None) -> str:
    return "not there" if value is None else f"{value:#x}"
