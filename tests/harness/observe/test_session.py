"""What a session does with its host between the questions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.hosts.channel import CommandResult
from harness.hosts.kvm_modules import ModuleFiles, Parameters
from harness.observe.session import PARAM_FILE, Session, module_options
from harness.questions.loads import Load
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import ENVIRONMENTS, HostVector
from tests.harness.settings import ON

LOAD = Load(18, ON, ENVIRONMENTS["std"])


class FakeHost:
    """kvm.ko's parameter, which a kvm-intel.ko without EPT clears; with ``keeps`` the next one sets it again."""

    def __init__(self, keeps: bool) -> None:
        self.keeps = keeps
        self.asked = self.value = ""
        self.loads: list[str] = []

    def boot_for(self, modules: ModuleFiles) -> bool:
        return False

    def deliver(self, path: Path, *, mode: int = 0o644) -> str:
        return str(path)

    def load(self, modules: ModuleFiles, parameters: Parameters) -> None:
        self.asked = "Y" if parameters.chosen == ON.words else "N"
        self.value = self.asked if parameters.ept else "N"
        self.loads.append(parameters.kvm_intel)

    def reload_intel(self, modules: ModuleFiles, parameters: Parameters) -> None:
        self.value = self.asked if self.keeps else self.value
        self.loads.append("again " + parameters.kvm_intel)

    def run(self, command: str, **_: object) -> CommandResult:
        if PARAM_FILE in command:
            return CommandResult(0, f"{self.value}\n".encode(), "")
        info = {"parameter": self.value, "msrs": {}}
        return CommandResult(0, json.dumps({"info": info}).encode(), "")


@pytest.mark.parametrize("keeps", [True, False])
def test_the_parameter_is_looked_at_over_a_kvm_intel_without_ept(keeps: bool) -> None:
    host = FakeHost(keeps)
    session = Session(host, lambda _: None, Path("client"), Path("probe"))  # type: ignore[arg-type, return-value]
    session.load(LOAD)
    (seen,) = session.ask_host([HostVector("reload")])
    assert (seen.kind, seen.note) == ((Kind.DONE, "") if keeps else (Kind.VALUE, "Y before, N behind"))
    plain = Parameters(ON.words).kvm_intel
    assert host.loads == [plain, replace(Parameters(ON.words), ept=False).kvm_intel, "again " + plain, plain]
    assert session.parameter == "Y"  # what comes next finds the load as it was


class RefusingHost(FakeHost):
    """A host that knows no tracepoint, and has no module to take out; ``alive`` is whether it still answers."""

    alive = True

    def reload_intel(self, modules: ModuleFiles, parameters: Parameters) -> None:
        raise HostError("rmmod: not there")

    def run(self, command: str, **options: object) -> CommandResult:
        if command == "true" and not self.alive:
            raise HostError("it is gone")
        if "events" in command or command.startswith("cat /sys/kernel"):
            raise HostError("no such event\nand more")
        return super().run(command, **options)


def asked_in_vain(host: RefusingHost) -> list[Outcome]:
    """Two questions that the host cannot be asked and one that it can."""
    session = Session(host, lambda _: None, Path("client"), Path("probe"))  # type: ignore[arg-type, return-value]
    session.load(LOAD)
    return session.ask_host([HostVector("reload"), HostVector("tspte"), HostVector("param")])


def test_a_question_that_a_host_cannot_be_asked_blocks_itself_alone() -> None:
    host = RefusingHost(True)
    reload, layout, parameter = asked_in_vain(host)
    assert (reload.kind, reload.note) == (Kind.BLOCKED, "rmmod: not there")
    assert (layout.kind, layout.note) == (Kind.BLOCKED, "no such event")
    assert (parameter.kind, parameter.note) == (Kind.VALUE, "Y")
    assert host.loads[-1] == Parameters(ON.words).kvm_intel  # what comes next finds the load as it was


def test_a_host_that_is_gone_is_no_question_that_cannot_be_asked() -> None:
    host = RefusingHost(True)
    host.alive = False
    with pytest.raises(HostError, match="it is gone"):
        asked_in_vain(host)


UG0 = Load(18, ON, ENVIRONMENTS["ug0"])


class ParametersHost(FakeHost):
    """A host whose kvm_intel has these parameters."""

    there: tuple[str, ...] = ()

    def run(self, command: str, **options: object) -> CommandResult:
        if "/sys/module/kvm_intel/parameters/" in command:
            name = command.rsplit("/parameters/")[1].split()[0]
            return CommandResult(0, b"N\n" if name in self.there else b"", "")
        return super().run(command, **options)


def test_an_environments_parameter_is_given_to_kvm_intel_once() -> None:
    words = module_options(UG0.setting, UG0.env).kvm_intel
    assert words == "nested=1 enable_apicv=0 ept=1 eptad=1 unrestricted_guest=0"
    chosen = Parameters((("kvm_intel", "enable_apicv", "1"),)).kvm_intel
    assert chosen == "nested=1 enable_apicv=1 ept=1 eptad=1"
    assert module_options(LOAD.setting, LOAD.env) == Parameters(ON.words)


def test_what_a_kernel_lacks_blocks_its_environment_and_no_other() -> None:
    host = ParametersHost(keeps=True)
    session = Session(host, lambda _: None, Path("client"), Path("probe"))  # type: ignore[arg-type, return-value]
    session.load(UG0)
    (seen,) = session.ask_host([HostVector("param", "ug0")])
    said = "not applicable: this kernel's kvm_intel has no parameter unrestricted_guest"
    assert (seen.kind, seen.note) == (Kind.BLOCKED, said)
    assert session.l1_can_run() == seen
    session.load(LOAD)
    assert session.ask_host([HostVector("param")])[0].kind is Kind.VALUE
    host.there = ("unrestricted_guest",)
    session.load(UG0)
    assert session.ask_host([HostVector("param", "ug0")])[0].kind is Kind.VALUE
