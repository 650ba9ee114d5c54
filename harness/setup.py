"""Everything a run needs, built or taken from the cache, and what it says of itself afterwards."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from harness import bochs, builds, kernel, levels, probe, proc, rootfs, series_io, toolbox
from harness.cache import Cache, sha256
from harness.errors import InputError
from harness.hosts.base import Host
from harness.hosts.emulated import CPU_WITH_MBEC, CPU_WITHOUT_MBEC, EmulatedHost
from harness.session import Session


class Bench:
    """The built parts: emulator, kernel, modules of every level, image, probe, client."""

    def __init__(
        self, cache: Cache, *, emulator: Path | None, mended: bool, linux: Path | None, series: Path | None
    ) -> None:
        self.cache = cache
        self._emulator, self._mended, self._linux = emulator, mended, linux
        self.series = series_io.read(series) if series is not None else series_io.read()
        self._modules: dict[int, levels.Modules] = {}
        self._kernel: kernel.BaseKernel | None = None
        self.bochs = Path()
        self.probe = Path()

    @classmethod
    def of(cls, args: argparse.Namespace) -> Bench:
        """From the options of ``harness.commands.common.add_builds``."""
        if args.bochs is not None and args.bochs_unmended:
            raise InputError("--bochs names your own emulator, --bochs-unmended builds ours: give one of them")
        return cls(Cache(), emulator=args.bochs, mended=not args.bochs_unmended, linux=args.linux, series=args.series)

    def build_bare(self) -> None:
        """Build what the bare CPU needs: emulator and probe."""
        toolbox.require()
        made = builds.side_by_side({"bochs": self._build_bochs, "probe": lambda: probe.build(self.cache)})
        self.bochs, self.probe = made["bochs"], made["probe"]

    def _build_bochs(self) -> Path:
        return bochs.users(self._emulator) if self._emulator else bochs.build(self.cache, self._mended)

    def build(self, wanted: Iterable[int]) -> None:
        """Build whatever is missing for these levels, independent parts side by side."""
        toolbox.require()
        apart: dict[str, Callable[[], Any]] = {
            "kernel": lambda: kernel.base(self.cache, self._linux),
            "bochs": self._build_bochs,
            "file system": lambda: rootfs.initramfs(self.cache),
            "probe": lambda: probe.build(self.cache),
            "client": lambda: probe.client(self.cache),
        }
        made = builds.side_by_side(apart)
        base: kernel.BaseKernel = made["kernel"]
        self._kernel = base
        self.bochs = made["bochs"]
        self.probe = made["probe"]
        self._client: bytes = made["client"].read_bytes()
        self._iso = rootfs.iso(self.cache, base.bzimage)
        self._modules = levels.build(self.cache, self.series, wanted, linux=self._linux)

    def provenance(self) -> dict[str, Any]:
        """What the run is made of, as far as it is known before a host runs."""
        made: dict[str, Any] = {
            "bochs": {"path": str(self.bochs), "sha256": sha256(self.bochs), "mended": self._mended},
            "probe": sha256(self.probe),
            "commit": _commit(),
        }
        if self._kernel is not None:
            made |= {
                "kernel": {"release": self._kernel.release, "inputs": self._kernel.key},
                "patches": {str(p.number): sha256(p.path) for p in self.series.patches},
                "qemu": rootfs.qemu_version(self.cache),
            }
        return made

    def open_host(self, cpu_mbec: bool, name: str) -> Host:
        """A host that is not started yet."""
        return EmulatedHost(
            self.cache,
            bochs=self.bochs,
            iso=self._iso,
            cpu_model=CPU_WITH_MBEC if cpu_mbec else CPU_WITHOUT_MBEC,
            name=name,
        )

    def open_session(self, host: Host) -> Session:
        """A session on a started host."""
        return Session(host, lambda level: self._modules[level], self._client, self.probe)


def _commit() -> str:
    """The checkout's commit, ``-dirty`` where files differ from it; empty outside a checkout."""
    found = proc.run(["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, check=False)
    return found.stdout.strip() if found.returncode == 0 else ""
