"""What the host does in a program's middle: the commands, and that it is undone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from harness import protocol
from harness.errors import GuestError, HostError
from harness.observe.host_steps import HostSteps
from harness.observe.qemu import Qemu

C = protocol.CONSTANTS


@dataclass
class FakeHost:
    ran: list[str] = field(default_factory=list)
    fails: bool = False
    few_commands: int = 70

    def run(self, command: str, *, check: bool = False) -> None:
        self.ran.append(command)
        if self.fails:
            raise HostError("no such file")

    def check(self) -> None:
        """It is there."""


JOBS = ("blockdev-create", "snapshot-save", "snapshot-load", "snapshot-delete")


@dataclass
class FakeQemu:
    host: FakeHost = field(default_factory=FakeHost)
    memory_file: str = "/dev/shm/l1"
    asked: list[str] = field(default_factory=list)
    logged: list[object] = field(default_factory=list)
    states: list[str] = field(default_factory=lambda: ["unstarted", "measuring", "measured"])
    logs: bool = True
    image: tuple[int, int] = (256, 16)
    running: bool = True
    node: bool = False
    broken: str = ""  # the job that fails
    jobs: list[dict[str, str]] = field(default_factory=list)

    def status(self) -> str:
        return "running" if self.running else "guest-panicked"

    def command(self, name: str, args: dict[str, object] | None = None) -> Any:
        self.asked.append(name)
        if name in JOBS:
            self.jobs = [{"status": "concluded"} | ({"error": "no room"} if name == self.broken else {})]
        if name == "query-jobs":
            return self.jobs
        if name == "query-named-block-nodes":
            return [{"node-name": "state"}] if self.node else []
        if name == "calc-dirty-rate":
            assert args is not None
            self.logged.append(args["calc-time"])
        if name == "calc-dirty-rate" and not self.logs:
            raise GuestError("no dirty log")
        return {"status": self.states.pop(0)} if name == "query-dirty-rate" else None


def steps(qemu: FakeQemu, *, nx: bool = False) -> HostSteps:
    return HostSteps(cast("Qemu", qemu), nx)


def test_the_mitigation_is_set_and_set_back() -> None:
    qemu = FakeQemu()
    made = steps(qemu)
    assert made.carry_out(C["HOST_NX_FORCE"], 0)
    made.restore()
    made.restore()
    where = "/sys/module/kvm/parameters/nx_huge_pages"
    assert qemu.host.ran == [f"echo force > {where}", f"echo off > {where}"]


def test_where_the_environment_has_it_that_is_what_is_set_back() -> None:
    qemu = FakeQemu()
    made = steps(qemu, nx=True)
    made.carry_out(C["HOST_NX_OFF"], 0)
    made.carry_out(C["HOST_NX_RESTORE"], 0)
    made.restore()
    assert [command.split()[1] for command in qemu.host.ran] == ["off", "force"]


def test_a_page_is_given_back_and_filled_again() -> None:
    qemu = FakeQemu()
    assert steps(qemu).carry_out(C["HOST_REMAP"], 0x1213000)
    assert qemu.host.ran == ["memio remap /dev/shm/l1 18952192 4096"]


def test_dirty_logging_is_waited_for() -> None:
    qemu = FakeQemu()
    made = steps(qemu)
    assert made.carry_out(C["HOST_LOG"], 0) and made.carry_out(C["HOST_UNLOG"], 0)
    assert qemu.asked == ["query-dirty-rate", "calc-dirty-rate", "query-dirty-rate", "query-dirty-rate"]
    assert qemu.logged == [qemu.host.few_commands]


def test_a_log_that_an_earlier_program_left_ends_before_the_next_begins() -> None:
    qemu = FakeQemu(states=["measuring", "measuring", "measured"])
    assert steps(qemu).carry_out(C["HOST_LOG"], 0)
    assert qemu.asked == [*["query-dirty-rate"] * 3, "calc-dirty-rate"]


def test_the_state_is_saved_and_restored_and_the_probes_image_kept() -> None:
    qemu = FakeQemu(node=True)
    assert steps(qemu).carry_out(C["HOST_SAVE"], 0)
    told = [name for name in qemu.asked if not name.startswith(("query", "job"))]
    assert told == ["stop", "snapshot-save", "snapshot-load", "snapshot-delete", "cont"]
    kept, put_back = qemu.host.ran
    assert "if=/dev/shm/l1 of=" in kept and kept.split()[1:] == put_back.split()[1:2] + kept.split()[2:]
    assert "skip=256 count=16" in kept
    assert "of=/dev/shm/l1 seek=256 count=16 conv=notrunc" in put_back


def test_an_l2_that_stands_still_is_set_going_by_whoever_heard_it() -> None:
    qemu = FakeQemu(node=True, running=False)
    assert steps(qemu).carry_out(C["HOST_SAVE"], 0)
    assert not {"stop", "cont"} & set(qemu.asked)


def test_qemu_gets_where_to_save_to_once() -> None:
    qemu = FakeQemu()
    assert steps(qemu).carry_out(C["HOST_SAVE"], 0)
    assert qemu.asked.count("blockdev-create") == qemu.asked.count("blockdev-add") == 2
    assert qemu.asked.index("migrate-set-capabilities") < qemu.asked.index("snapshot-save")


@pytest.mark.parametrize("job", JOBS)
def test_a_job_that_fails_is_told(job: str) -> None:
    assert not steps(FakeQemu(broken=job)).carry_out(C["HOST_SAVE"], 0)


@pytest.mark.parametrize("call", ["HOST_AGE", "HOST_NX_FORCE", "HOST_REMAP"])
def test_what_the_host_cannot_do_it_says(call: str) -> None:
    assert not steps(FakeQemu(host=FakeHost(fails=True))).carry_out(C[call], 0)


def test_a_qemu_without_a_dirty_log_says_so() -> None:
    assert not steps(FakeQemu(logs=False)).carry_out(C["HOST_LOG"], 0)
