"""One lab machine and what a run does to it: an emulated Intel host reached by SSH, real KVM and QEMU.

The command runs as a process of its own, as a user types it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.build import kernel, rootfs
from harness.build.cache import Cache
from harness.hosts import boot
from harness.hosts.emulated import EmulatedHost, free_port
from harness.results.journal import Journal
from harness.results.verdict import Mark
from harness.run import emulator
from kvmodel.question.outcome import Kind
from tests.test_lab_run import Answers, answers, comparable, ended

pytestmark = pytest.mark.live

ASKED = ["--vectors", "thin", "host_itself"]
CALLS_ITS_HOST = "prog+read.a3,write.b4+host.remap.p3+read.a3+read.b3+write.a3+read.b4"
# As a distribution builds it that leaves out what L1 runs on; {without} is taken from what it has.
OTHER_QEMU = """\
#!/bin/sh
real=/bin/qemu-system-x86_64
case "$*" in
"-machine help") $real -machine help | grep -v microvm ;;
"-device help") $real -device help | grep -v {without} ;;
*microvm* | *"-device {without}"*) echo "it has none of that" >&2; exit 1 ;;
*) exec $real "$@" ;;
esac
"""


class LabMachine:
    """The emulated host as a lab machine, and the options by which kvmirror logs in."""

    def __init__(self, folder: Path) -> None:
        cache = Cache()
        self.host = EmulatedHost(
            cache,
            bochs=emulator.build(cache),
            boot=boot.boot(cache, kernel.base(cache).bzimage),
            name="lab1",
            port=free_port(),
            boot_timeout=300,
        )
        known = folder / "known_hosts"
        known.write_text(f"[127.0.0.1]:{self.host.port} {rootfs.keys(cache).host_public}\n")
        key = rootfs.keys(cache).client_private
        self.options = ["--host", f"ssh://root@127.0.0.1:{self.host.port}"]
        self.options += ["--host-key", str(key), "--known-hosts", str(known)]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabMachine]:
    made = LabMachine(tmp_path_factory.mktemp("machine"))
    with made.host:
        yield made


def kvmirror(journal: Path, *words: str) -> subprocess.Popen[str]:
    """A command of its own process; what it says is beside ``journal``."""
    return subprocess.Popen(
        [sys.executable, "-m", "harness.cli", *words, "--journal", str(journal)],
        env={**os.environ},
        stdout=subprocess.DEVNULL,
        stderr=journal.with_suffix(".said").open("w"),
        text=True,
    )


def asked(journal: Path, *words: str) -> Answers:
    """A run over levels 0 and 18 to its end, and every answer of it."""
    ended(kvmirror(journal, "validate", "--levels", "0,18", "--param", "unset,1", *ASKED, *words), journal, 0, 1)
    return answers(journal)


def boards(journal: Path) -> set[str]:
    with Journal(journal) as kept:
        told = [cell.facts for cell in kept.cells(kept.latest()).values()]
    return {str(facts["board"]) for facts in told if "board" in facts}


@pytest.fixture(scope="module")
def plain(machine: LabMachine, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What the machine answers as it is."""
    journal = tmp_path_factory.mktemp("plain") / "journal.sqlite"
    found = asked(journal, CALLS_ITS_HOST, *machine.options)
    assert len(found) > 100
    assert boards(journal) == {"microvm"}
    return found


def other_qemu(machine: LabMachine, without: str) -> list[str]:
    """The options for a QEMU on the machine that has no microvm, nor the device ``without``."""
    path = f"/root/qemu-{without}"
    machine.host.put(OTHER_QEMU.format(without=without).encode(), path, mode=0o755)
    return [*machine.options, "--host-qemu", path]


def test_an_emulated_host_answers_by_pc_as_by_microvm(plain: Answers, tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    assert comparable(asked(journal, CALLS_ITS_HOST, "--jobs", "1", "--l1-machine", "pc")) == plain
    assert boards(journal) == {"pc"}


def test_a_qemu_without_microvm_answers_the_same_and_it_is_said(
    machine: LabMachine, plain: Answers, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.sqlite"
    assert asked(journal, CALLS_ITS_HOST, *other_qemu(machine, "megasas")) == plain
    assert boards(journal) == {"pc"}
    said = journal.with_suffix(".said").read_text()
    assert "L1 by QEMU's machine pc, which starts more slowly than microvm" in said


def test_a_qemu_without_pvpanic_answers_all_but_what_calls_its_host(
    machine: LabMachine, plain: Answers, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.sqlite"
    found = asked(journal, CALLS_ITS_HOST, *other_qemu(machine, "pvpanic"))
    assert boards(journal) == {"pc without pvpanic"}
    differ = {key for key in found if found[key] != plain[key]}
    assert differ and all(str(key[3]).startswith("prog") for key in differ)
    with Journal(journal) as kept:
        deaf = [a for _, a in kept.answers(kept.latest()) if a.vector.id.startswith("prog")]
    assert all(a.seen.kind is Kind.SCAFFOLD and a.verdict.marks == Mark.BLOCKED for a in deaf)
    assert all("pvpanic device is needed" in a.seen.note for a in deaf)
