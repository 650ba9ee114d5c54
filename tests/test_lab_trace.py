"""A guest on a lab's place is watched: a real labgrid coordinator and exporter, an emulated Intel host as the place,
and QEMU with an L1 and its L2 on it.

The command runs as a process of its own, as a person types it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.build import modules as levels
from harness.build import probe
from harness.build.cache import Cache
from harness.errors import InfraError
from harness.hosts import Host
from harness.observe import Session
from harness.posted import opened
from harness.questions import core, plan
from tests.emulated_lab import EmulatedLab, emulated_lab
from tests.harness.settings import OFF

pytestmark = pytest.mark.live

LEVEL = 18
LONG = 72_000  # vectors: on a quiet machine too the guest lives longer than it is watched
READY = 90.0  # seconds in which the guest has to be there


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedLab]:
    with emulated_lab(tmp_path_factory.mktemp("lab"), places=1) as made:
        yield made


def guest(host: Host) -> int | None:
    """The QEMU whose virtual machine has a vCPU."""
    for pid in host.run("pidof qemu-system-x86_64").stdout.split():
        if "anon_inode:kvm-vcpu" in host.run(f"ls -l /proc/{pid}/fd 2>/dev/null").stdout:
            return int(pid)
    return None


@pytest.fixture
def somebodys(lab: EmulatedLab) -> Iterator[int]:
    """A guest of somebody's on the place's machine: its QEMU's process."""
    cache, host = Cache(), lab.sockets["lab1"].host
    made = levels.build(cache, opened(None, None, None), [LEVEL])
    asked = [v for v in core.core() if v.id.startswith("e4k")][::8]
    work = max(plan(asked, [LEVEL], [OFF]), key=lambda work: work.size)
    machine, vectors = max(work.batches.items(), key=lambda item: len(item[1]))
    vectors = (vectors * LONG)[:LONG]  # one QEMU asks them all
    session = Session(host, made.__getitem__, probe.client(cache), probe.build(cache))
    session.load(work.load)

    def ask() -> None:
        with contextlib.suppress(InfraError):
            session.ask_l1(machine, vectors)

    asking = threading.Thread(target=ask, name="guest", daemon=True)
    asking.start()
    deadline = time.monotonic() + READY
    while (pid := guest(host)) is None:
        assert asking.is_alive() and time.monotonic() < deadline
        time.sleep(0.2)
    yield pid
    deadline = time.monotonic() + READY
    while asking.is_alive() and time.monotonic() < deadline:  # a guest that ended is tried once more
        if (there := guest(host)) is not None:
            host.run(f"kill -9 {there}; true")
        asking.join(1)
    assert not asking.is_alive()


def left(host: Host) -> str:
    """What there is of tracing and of sleeping processes."""
    return host.run("ls /sys/kernel/tracing/instances; ps | grep -c '[s]leep'").stdout


def test_a_guest_on_a_place_is_watched(lab: EmulatedLab, somebodys: int, tmp_path: Path) -> None:
    host = lab.sockets["lab1"].host
    before, kept = left(host), tmp_path / "guest.trace"
    words = ["--host", "labgrid:cpu=icelake", *lab.login, "--pid", str(somebodys), "--for", "1s", "--size", "1"]
    found = subprocess.run(
        [sys.executable, "-m", "harness.cli", "trace", *words, "--save", str(kept), "--json"],
        env={**os.environ, "LG_COORDINATOR": lab.coordinator},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode in (0, 1), found.stderr
    told = json.loads(found.stdout)
    facts = told["facts"]
    assert facts["pid"] == somebodys and not facts["ended"]
    assert facts["parameters"]["kvm/enable_pt_guest_exec_control"] == "N"
    assert told["reasons"]["EPT_VIOLATION"] > 10 and told["judged"]["kvm_exit"] > 10
    assert "acquired lab1 (root@" in found.stderr
    assert "acquired: None" in lab.client("-v", "places")
    assert left(host) == before
    again = subprocess.run(
        [sys.executable, "-m", "harness.cli", "trace", "--read", str(kept), "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert json.loads(again.stdout) == told
