"""Each finding of a run is made smaller on a host, and what came of it stays with the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from harness.cli import main
from harness.errors import HostError, InputError
from harness.findings import Run
from harness.hosts.address import parse_all
from harness.hosts.lab import AddressesLab, Login
from harness.observe.l1 import Seen
from harness.observe.reports import Reported
from harness.questions.loads import Load
from harness.results import cpus
from harness.results.journal import Answer, CellKey, Journal
from harness.results.verdict import judge
from harness.run import minimise_on_hosts
from harness.run.setup import Bench
from harness.series import folder
from kvmodel import machine, sdm
from kvmodel.question.vector import Access, AccessVector, Mbec, Perm, Vector

LOOPS = AccessVector(Mbec.OFF, leaf=Perm.parse("--xu"), cpl=3, smep=True)
DIES = AccessVector(Mbec.OFF, leaf=Perm.parse("r--u"), upper=Perm.parse("r--u"), access=Access.RMW)


class Host:
    """A host that is only counted."""

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class MirrorSession:
    """Shows what the mirror says; its host dies of a write."""

    spent = False

    def unclaimed(self, _: object = ()) -> list[Reported]:
        return []

    parameter: str | None = "N"
    mbec_offered = False

    def __init__(self) -> None:
        self._load: Load | None = None

    def load(self, load: Load) -> None:
        self._load = load

    def l1_can_run(self) -> None:
        return None

    def ask_l1(self, _: object, vectors: list[Vector], *__: object, **___: object) -> Seen:
        if any(isinstance(v, AccessVector) and v.access is Access.RMW for v in vectors):
            raise HostError("the emulated host panicked\nits console")
        assert self._load is not None
        return Seen([machine.predict(self._load.level, self._load.param, cpus.emulated(), v).outcome for v in vectors])


class FakeBench:
    """Hosts that are counted, a session that answers as the mirror does."""

    host_cpu = staticmethod(cpus.emulated)
    series = folder.read()

    def __init__(self) -> None:
        self.opened = 0

    def open_host(self, *_: object) -> Host:
        self.opened += 1
        return Host()

    def open_session(self, _: Host) -> MirrorSession:
        return MirrorSession()


def answer(vector: Vector) -> Answer:
    seen = machine.predict(11, False, cpus.emulated(), vector).outcome
    contract = sdm.allowed(machine.virtual_cpu(11, False, cpus.emulated(), vector.machine), vector)
    return Answer(vector, seen, seen, contract, judge(seen, contract, seen))


def test_every_finding_is_tried_and_a_dead_host_costs_one(tmp_path: Path) -> None:
    bench, said = FakeBench(), list[str]()
    with Journal(tmp_path / "j") as journal:
        run = journal.begin([], {})
        journal.record(run, CellKey(11, "0", "kvm", "std"), [answer(DIES), answer(LOOPS)], 1.0, {})
        found = sorted(Run.open(journal, run).findings, key=lambda f: "rmw" not in f.smallest.vector.id)
        assert len(found) == 2
        minimise_on_hosts.minimise_all(journal, run, found, cast(Bench, bench), said.append)
        after = {f.symptom.severity: f for f in Run.open(journal, run).findings}
    assert bench.opened == 2
    assert f"{found[0].name}: not confirmed, the emulated host panicked" in said
    loop = after["L2 livelock"]
    assert (loop.confirmed, loop.smallest.vector) == ("confirmed 3/3 alone", replace(LOOPS, cpl=0, smep=False))
    assert after["host trouble"].confirmed == ""


def test_a_lab_machine_is_free_again_when_its_worker_has_ended() -> None:
    lab = AddressesLab(parse_all("ssh://lab1"), Login())
    lab._taken[1] = lab.machines[0]  # a thread that is no more
    with pytest.raises(HostError, match="more workers"):
        lab.mine("6.12.8", Path())
    lab.release()
    assert lab.mine("6.12.8", Path()).name


def test_a_bare_cpu_has_nothing_to_minimise() -> None:
    args = main.parser().parse_args(["validate", "--bare", "--minimise", "--vectors", "thin"])
    with pytest.raises(InputError, match="--bare"):
        args.run(args)
