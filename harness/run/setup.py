"""Everything a run needs, built or taken from the cache, and what it says of itself afterwards."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from harness import places
from harness.build import Cache, bochs, kernel, packages, probe, rootfs, sha256
from harness.build import modules as levels
from harness.errors import InputError, SeriesError
from harness.hosts import (
    BOARD,
    BOOT_TIMEOUT,
    Board,
    Capabilities,
    EmulatedHost,
    Host,
    KernelImage,
    Lab,
    Model,
    ModuleFiles,
    board,
    boot,
    models,
)
from harness.observe import Session
from harness.posted import opened
from harness.process import parallel, programs
from harness.questions import Load
from harness.results import RunSeries, Said, cpus, of_series
from harness.review import check as series_check
from harness.review import identity
from harness.run import emulator, having, processors
from harness.run.basis import Basis
from harness.series import folder
from harness.series import folder as series_io
from kvmodel.cpu import Cpu

DEBUG_BOOT: Final = 600.0  # seconds of wall time that a host with a kernel for debugging may take to come up


class Bench:
    """The bench has the built parts: emulator, kernel, modules of every level, image, probe, client."""

    def __init__(
        self,
        cache: Cache,
        *,
        emulator: Path | None,
        mended: bool,
        linux: kernel.Linux | None,
        series: Path | None,
        lab: Lab | None = None,
        on: str | None = None,
        model: Model = models.USUAL,
        board: Board = BOARD,
    ) -> None:
        self.cache = cache
        self._emulator, self._mended, self._linux = emulator, mended, linux
        self.series = opened(series, on, linux)
        self._named = of_series.options(None if series is None else str(series.expanduser().absolute()), on)
        self._modules: dict[int, levels.Modules] = {}
        self._codes: dict[int, str] = {}
        self._kernel: kernel.BaseKernel | None = None
        self.bochs = Path()
        self.probe = Path()
        self.client = Path()
        self.lab = lab
        self._lab_capabilities: Capabilities | None = None
        self.model = model
        self.board = board  # of emulated hosts; a lab machine has what its QEMU has
        self._processors: dict[Model, processors.Processor] = {}
        self.cpus: dict[str, dict[str, Any]] = {}  # what hosts said of their CPUs, by the host's name

    @classmethod
    def of(cls, args: argparse.Namespace, model: Model = models.USUAL) -> Bench:
        """The function makes it from the options of ``harness.cli.common.add_builds``; ``model`` is whose CPU emulated
        hosts have.

        Raises InputError where a kernel for debugging is asked of lab machines.
        """
        lab = Lab.chosen(args)
        emulator = None if args.bochs_unmended else args.bochs
        linux: kernel.Linux | None = args.linux
        if getattr(args, "host_kernel", "plain") == "debug":
            if lab is not None:
                raise InputError(
                    "--host-kernel debug is the emulated host's: a lab machine runs what it was booted with; "
                    "leave out one of --host and --host-kernel"
                )
            linux = kernel.Debug(args.linux)
        return cls(
            Cache(),
            emulator=emulator,
            mended=not args.bochs_unmended,
            linux=linux,
            series=getattr(args, "series", None),
            lab=lab,
            on=getattr(args, "on", None),
            model=model,
            board=board.named(getattr(args, "l1_machine", None)),
        )

    @property
    def run_series(self) -> RunSeries:
        """The function gives the series as a run's provenance has it."""
        return RunSeries(self.series.last, self.mirrored, self._named, len(self.series.on))

    @property
    def debug(self) -> bool:
        """This says whether the host's kernel is one for debugging."""
        return isinstance(self._linux, kernel.Debug)

    @property
    def mirrored(self) -> bool:
        """The mirror is of this series, on nothing but the base: True."""
        return self.series.mirrored and not self.series.on

    def host_cpu(self, mbec: bool = True) -> Cpu:
        """This is the CPU under KVM as the mirror needs to know it: the lab machines', else the emulated one's.

        Only where ``build`` was called.
        """
        return self._capabilities(mbec).cpu()

    def _capabilities(self, mbec: bool) -> Capabilities:
        """What that CPU itself says."""
        if self.lab is None:
            return self.processor(mbec).capabilities
        if self._lab_capabilities is None:
            self._lab_capabilities = self.lab.capabilities()
        return self._lab_capabilities

    def processor(self, mbec: bool = True) -> processors.Processor:
        """This is the emulated CPU as it was found, with or without MBEC; only where ``build`` was called."""
        model = self._model(mbec)
        if model not in self._processors:
            self._processors[model] = processors.read(self.cache, self.bochs, self.probe, model)
        return self._processors[model]

    def _model(self, mbec: bool) -> Model:
        return self.model if mbec else models.WITHOUT_MBEC

    def build_bare(self) -> None:
        """The bench makes what the bare CPU needs: emulator and probe."""
        packages.require()
        made = parallel.side_by_side({"bochs": self._build_bochs, "probe": lambda: probe.build(self.cache)})
        self.bochs, self.probe = made["bochs"], made["probe"]

    def _build_bochs(self) -> Path:
        if self._emulator is None:
            return emulator.build(self.cache, self._mended, self.model.without)
        if self.model.without:
            raise InputError(
                f"--cpu {self.model}: an emulator of yours has what it has; leave out --bochs, or the colon"
            )
        return bochs.users(self._emulator)

    def build(self, wanted: Iterable[int]) -> None:
        """The bench makes whatever is missing for these levels, independent parts side by side."""
        packages.require()
        wanted = list(wanted)
        apart: dict[str, Callable[[], Any]] = {
            "kernel": lambda: kernel.base(self.cache, self._linux),
            # A patch that does not apply is told before the long builds are done.
            "patches": lambda: folder.states(self.series, kernel.source(self.cache, self._linux), max(wanted)),
            **(
                {"memio": lambda: probe.memio(self.cache)}
                if self.lab
                else {"bochs": self._build_bochs, "file system": lambda: rootfs.initramfs(self.cache)}
            ),
            "probe": lambda: probe.build(self.cache),
            "client": lambda: probe.client(self.cache),
        }
        made = parallel.side_by_side(apart)
        base: kernel.BaseKernel = made["kernel"]
        self._kernel = base
        for lost in base.lost:
            self.cache.progress.say(f"Linux {base.release} was built without {lost}")
        self.probe = made["probe"]
        self.client = made["client"]
        if self.lab:
            self._memio: Path = made["memio"]
        else:
            self.bochs = made["bochs"]
        self._modules = levels.build(self.cache, self.series, wanted, linux=self._linux)
        self.carry(self._modules.values())

    def carry(self, modules: Iterable[levels.Modules]) -> None:
        """Hosts that are opened from now on have these modules from their start, as far as there is room."""
        if self.lab is None:
            files = [path for made in modules for path in (made.kvm, made.kvm_intel)]
            words = kernel.DEBUG_WORDS if self.debug else ""
            self._boot = boot.boot(self.cache, self.base.bzimage, [self.probe, self.client, *files], words)

    @property
    def base(self) -> kernel.BaseKernel:
        """This is the base kernel; it is there only where ``build`` was called."""
        assert self._kernel is not None
        return self._kernel

    def level(self, number: int) -> levels.Modules:
        """The function gives the modules of a level, built where the cache has none."""
        if number not in self._modules:
            self._modules |= levels.build(self.cache, self.series, [number], linux=self._linux)
        return self._modules[number]

    def changes_nothing(self, patch: int) -> bool:
        """Whether a patch is known to change no machine code where it stands: the cache has both its levels."""
        there = not levels.missing(self.cache, self.series, [patch - 1, patch], linux=self._linux)
        if there:
            self.level(patch - 1), self.level(patch)
        return there and self.code(patch - 1) == self.code(patch)

    def provenance(self) -> dict[str, Any]:
        """The function gives what the run is made of, as far as it is known before a host runs."""
        made: dict[str, Any] = {"probe": sha256(self.probe), "commit": _commit()}
        made[of_series.PROVENANCE] = self.run_series.as_json()
        made[of_series.BELOW] = [of_series.diff_hash(patch) for patch in self.series.on]
        if self.lab is None:
            made["bochs"] = {"path": str(self.bochs), "sha256": sha256(self.bochs), "mended": self._mended}
        made |= self.machines
        if self._kernel is not None:
            made |= {
                "kernel": {
                    "release": self._kernel.release,
                    "inputs": self._kernel.key,
                    **({"host_kernel": "debug"} if self.debug else {}),
                },
                "config": {
                    "fragment": sha256(self._kernel.fragment),
                    "config": sha256(self._kernel.config),
                    **({"lost": list(self._kernel.lost)} if self._kernel.lost else {}),
                },
                "compiler": kernel.compiler_version(),
                "patches": self.patches(),
            }
            if self.lab is None:
                made["qemu"] = rootfs.qemu_version(self.cache)
                both = ((cpus.WITH, True), (cpus.WITHOUT, False))
                made[cpus.EMULATED] = {words: self.processor(mbec).as_json() for words, mbec in both}
            else:
                made[cpus.PROVENANCE] = cpus.as_json(self.host_cpu())
                made["lab_msrs"] = self._capabilities(True).as_json()
        return made

    def patches(self, *, compared: bool = False) -> list[dict[str, Any]]:
        """The function gives a row a patch: its mail, how it applies, its level's build.

        With ``compared`` also what became of the machine code of the run's levels, where the cache has the level
        below: seconds a patch the first time.
        """
        known = dict(self._modules)
        applied = self._applied(self.base.pristine)
        if compared:
            everything = range(len(applied) + 1)
            there = set(everything) - set(levels.missing(self.cache, self.series, everything, linux=self._linux))
            known = levels.build(self.cache, self.series, there, linux=self._linux, need_image=False)
        rows = []
        for done in applied:
            patch = done.patch
            here, below = (known.get(n) for n in (patch.number, patch.number - 1))
            far = max((abs(o.lines) for o in done.offsets), default=0)
            how = f"{len(done.offsets)} offsets, at most {far} lines" if done.offsets else "exactly"
            row: dict[str, Any] = {
                "number": patch.number,
                "subject": patch.subject,
                "author": patch.author,
                "message_id": patch.message_id,
                "claim": patch.claim.value,
                "sha256": sha256(patch.path),
                "diff": of_series.diff_hash(patch),
                "applies": Said.of(True, how).text,
            }
            if here is not None:
                new = [w for w in here.warnings if below is None or w not in below.warnings]
                row["builds"] = Said.of(True, f"{here.seconds:.0f} s" + (f", {len(new)} warnings" if new else "")).text
            if compared and patch.number in self._modules and here is not None and below is not None:
                words = series_check.told(self.cache, below, here)
                row["identity"] = words + (self._brought_back(patch.number) if words != "identical" else "")
            rows.append(row)
        return rows

    def _applied(self, pristine: Path) -> list[series_io.Applied]:
        """The series applied; where that ends above the run's levels (another kernel's level 0), up to those."""
        try:
            return series_io.states(self.series, pristine)
        except SeriesError:
            return series_io.states(self.series, pristine, max(self._modules, default=0))

    def _brought_back(self, level: int) -> str:
        """Words for a level whose machine code is that of a lower one of the run."""
        first = min(n for n in self._modules if n <= level and self.code(n) == self.code(level))
        return f"; the machine code of level {first}" if first < level else ""

    def code(self, level: int) -> str:
        """The text is the same for two levels of the run whose modules are the same machine code and data."""
        if level not in self._codes:
            self._codes[level] = identity.fingerprint(self.cache, series_check.files(self._modules[level]))
        return self._codes[level]

    def basis(self) -> Basis | None:
        """The function gives what answers of the run rest on, where ``build`` was called; None on lab machines."""
        if self.lab is not None:
            return None
        return Basis(
            code=self.code,
            image=self.base.bzimage,
            emulator=self.bochs,
            file_system=rootfs.initramfs(self.cache),
            qemu=rootfs.qemu_version(self.cache),
            probe=self.probe,
            client=self.client,
            model=self.model,
            board=self.board,
        )

    def fingerprints(self) -> dict[str, dict[str, str]]:
        """The modules of each level of the run are told by their files' hashes, and that of their machine code."""
        return {
            str(level): {
                **{name: sha256(path) for name, path in series_check.files(made).items()},
                "code": self.code(level),
            }
            for level, made in sorted(self._modules.items())
        }

    def check_parameters(self, loads: Iterable[Load]) -> None:
        """InputError where a load gives a parameter that the level's modules, as built, do not have or do not take."""
        for load in loads:
            if load.setting.words:
                having.check(load.setting, self._modules[load.level], f"level {load.level}")

    def modules(self, level: int) -> levels.Modules:
        """The function gives the modules of a level of the run."""
        return self._modules[level]

    @property
    def kernel_release(self) -> str:
        """The text is the base kernel's release, as it says it itself."""
        assert self._kernel is not None
        return self._kernel.release

    def release(self) -> None:
        """The workers have ended: whoever opens a host next may have any."""
        if self.lab is not None:
            self.lab.release()

    def open_host(self, cpu_mbec: bool, name: str) -> Host:
        """The function gives a host that is not started yet."""
        if self.lab is not None:
            image = KernelImage(self.base.bzimage, self.base.build_id)
            return self.lab.mine(self.base.release, self._memio, image)
        return EmulatedHost(
            self.cache,
            bochs=self.bochs,
            boot=self._boot,
            model=self._model(cpu_mbec),
            name=name,
            boot_timeout=DEBUG_BOOT if self.debug else BOOT_TIMEOUT,
            board=self.board,
        )

    def replace_host(self) -> bool:
        """The thread's machine is lost for good, and another one of the lab is the thread's now: True."""
        return self.lab is not None and self.lab.replace()

    @property
    def machines(self) -> dict[str, list[str]]:
        """These are the lab's machines as the provenance has them; empty without one.

        They may be others than at the run's begin.
        """
        return {} if self.lab is None else {"lab": self.lab.names}

    def start_commands(self, cpu_mbec: bool) -> list[str]:
        """The commands say how a host comes up, as ``--dry-run`` shows it."""
        if self.lab is not None:
            return self.lab.plans()
        model = self._model(cpu_mbec)
        return [f"{self._emulator or 'bochs'} -q -f bochsrc  # cpu model {model.emulated_as} ({model})"]

    def open_session(self, host: Host, modules: Callable[[int], ModuleFiles] | None = None) -> Session:
        """A session on a started host; ``modules`` gives other modules than the levels' for the number of a load.

        HostError where an emulated host's CPU is not what the mirror was told.
        """
        where = host.name
        if isinstance(host, EmulatedHost):
            where = host.model.emulated_as
            mbec = host.model != models.WITHOUT_MBEC
            processors.agree(self.processor(mbec), host.capabilities(), host.name)
        self.cpus[where] = host.cpu_info().provenance
        return Session(host, modules or self._modules.__getitem__, self.client, self.probe, marking=self.debug)


def _commit() -> str:
    """The checkout's commit, ``-dirty`` where files differ from it; empty outside a checkout."""
    if places.CHECKOUT is None:
        return ""
    found = programs.run(["git", "describe", "--always", "--dirty"], cwd=places.CHECKOUT, check=False)
    return found.stdout.strip() if found.returncode == 0 else ""
