"""A real labgrid coordinator and exporter on loopback: what is reserved, acquired, switched and given back.

The places' machines are not there: this is about who has which place. tests/test_lab_run.py runs on machines.
"""

from __future__ import annotations

import builtins
import http.server
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.errors import HostError, InputError
from harness.hosts import coordinator, release_all
from harness.hosts.coordinator import Coordinator
from harness.hosts.cpuinfo import Capabilities
from harness.hosts.lab import Lab, Login, PlacesLab
from harness.hosts.place import HeldPlace
from harness.hosts.tags import parse_tags
from tests.emulated_lab import coordinated

TAGS = {
    "lab1": {"cpu": "icelake", "mbec": "yes"},
    "lab2": {"cpu": "icelake", "mbec": "yes"},
    "lab3": {"cpu": "skylake", "mbec": "yes"},
    "bare": {"cpu": "none"},
}
SERVICE = "{name}:\n  NetworkService:\n    address: 127.0.0.1\n    port: 9\n    username: root\n"
POWER = """\
  NetworkPowerPort:
    model: simplerest
    host: 'http://127.0.0.1:{port}/relay/{{index}}/{{value}}'
    index: 0
"""
BOTH = parse_tags("labgrid:cpu=icelake,mbec=yes")


class Relay(http.server.BaseHTTPRequestHandler):
    """A power switch that remembers what it was told."""

    told: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.told.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A coordinator with four places: two alike, one of another CPU, one without resources of its own kind."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    exported = "".join(SERVICE.format(name=name) for name in ("lab1", "lab2", "lab3"))
    exported = exported.replace("lab2:", POWER.format(port=server.server_address[1]) + "lab2:", 1)
    exported += "bare:\n  NetworkSerialPort:\n    host: 127.0.0.1\n    port: 9\n"
    with coordinated(tmp_path_factory.mktemp("lab"), TAGS, exported) as where:
        yield where
    server.shutdown()


@pytest.fixture
def session(address: str) -> Iterator[Coordinator]:
    made = Coordinator(address)
    made.open()
    yield made
    made.close()


def second(address: str) -> Coordinator:
    """Another session. gRPC gives two to the same name one connection, and labgrid tells clients by connection."""
    made = Coordinator(address.replace("127.0.0.1", "localhost"))
    made.open()
    return made


def free(session: Coordinator) -> set[str]:
    """The places that nobody has."""
    return {name for name in TAGS if not session.taken_by(name)}


def eventually(true: Any) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_all_places_with_the_tags_are_had_and_given_back(address: str, session: Coordinator) -> None:
    other = second(address)
    assert session.acquire(BOTH, 9, 0) == ["lab1", "lab2"]
    assert session.holds("lab1") and not session.holds("lab3")
    at = session.service("lab2")
    assert (at.user, at.address, at.port) == ("root", "127.0.0.1", 9)
    eventually(lambda: free(other) == {"lab3", "bare"})
    session.close()
    eventually(lambda: free(other) == set(TAGS))
    other.close()


def test_no_more_places_than_wanted(session: Coordinator) -> None:
    (one,) = session.acquire(BOTH, 1, 0)
    assert len(free(session)) == 3
    session.release(one)
    eventually(lambda: free(session) == set(TAGS))


def test_a_place_that_others_have_is_named_with_who_has_it(address: str, session: Coordinator) -> None:
    other = second(address)
    try:
        other.acquire(BOTH, 2, 0)
        with pytest.raises(HostError, match=r"no place with cpu=icelake mbec=yes is free \(lab1: .+/.+; lab2: .+\)"):
            session.acquire(BOTH, 2, 0)
        assert not session._held
    finally:
        other.close()
    eventually(lambda: free(session) == set(TAGS))  # no reservation of the one that got nothing is left


def test_one_that_waits_gets_the_place_that_is_given_back(
    address: str, session: Coordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    other = second(address)
    other.acquire(BOTH, 2, 0)
    threading.Timer(1.5, other.close).start()
    assert session.acquire(BOTH, 1, 30)[0] in ("lab1", "lab2")
    assert "waiting for a place with cpu=icelake mbec=yes (lab1: " in capsys.readouterr().err


def test_a_tag_that_no_place_has_is_named(session: Coordinator) -> None:
    with pytest.raises(HostError, match=r"no place has cpu=sapphire \(there is cpu=icelake, cpu=none, cpu=skylake\)"):
        session.acquire(parse_tags("labgrid:cpu=sapphire,mbec=yes"), 1, 0)


def test_a_place_without_a_way_to_it_is_said_and_given_back(address: str, session: Coordinator) -> None:
    lab = Lab.of("labgrid:cpu=none", None, None, None, address.replace("127.0.0.1", "localhost"))
    assert lab.want(None) == 1
    with pytest.raises(HostError, match=r"place bare has 0 resources NetworkService.* -p bare show"):
        lab.capabilities()
    lab._coordinator.close()  # type: ignore[attr-defined]
    eventually(lambda: free(session) == set(TAGS))


def test_power_is_cycled_where_there_is_a_port(session: Coordinator) -> None:
    session.acquire(parse_tags("labgrid:name=lab1"), 1, 0)
    session.acquire(parse_tags("labgrid:name=lab2"), 1, 0)
    Relay.told.clear()
    assert session.cycle("lab1") and not session.cycle("lab2")
    assert Relay.told == ["/relay/0/0", "/relay/0/1"]


def test_a_place_that_does_not_answer_and_cannot_be_switched(address: str, session: Coordinator) -> None:
    lab = Lab.of("labgrid:cpu=skylake", None, None, None, address.replace("127.0.0.1", "localhost"))
    with pytest.raises(HostError, match=r"no SSH connection to root@127\.0\.0\.1:9.*lab3 has no power port"):
        lab.capabilities()
    lab._coordinator.close()  # type: ignore[attr-defined]
    eventually(lambda: free(session) == set(TAGS))


def test_a_place_that_somebody_else_released_is_seen(address: str, session: Coordinator) -> None:
    session.acquire(parse_tags("labgrid:name=lab3"), 1, 0)
    other = second(address)
    other._call("ReleasePlace", "ReleasePlaceRequest", placename="lab3")
    other.close()
    eventually(lambda: not session.holds("lab3"))


def test_the_command_line_names_the_tag_and_where_it_looked(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "validate",
        "--host",
        "labgrid:cpu=sapphire",
        "--coordinator",
        address,
        "--levels",
        "0",
        "--vectors",
        "thin",
    ]
    assert main.main(words) == 4
    assert re.search(rf"labgrid at {address}: no place has cpu=sapphire \(there is", capsys.readouterr().err)


def test_a_dry_run_takes_no_place(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["validate", "--host", "labgrid:mbec=yes", "--coordinator", address, "--dry-run", "--vectors", "thin"]
    assert main.main([*words, "--levels", "0"]) == 0
    told = capsys.readouterr().out
    assert all(f"labgrid-client -x {address} -p {name} acquire" in told for name in ("lab1", "lab2", "lab3"))
    after = second(address)
    assert free(after) == set(TAGS)
    after.close()


def test_what_is_held_at_the_end_is_given_back(address: str) -> None:
    lab = Lab.of("labgrid:cpu=icelake", None, None, None, address)
    lab.want(None)
    assert len(lab.names) == 2
    release_all()
    after = second(address)
    eventually(lambda: free(after) == set(TAGS))
    after.close()


class Reaching(PlacesLab):
    """The places of a lab, all but ``dark`` of which answer with this CPU."""

    dark: str = ""
    cpu = Capabilities({0x48B: 1 << 54}, vmx=True, maxphyaddr=40)

    def _told_by(self, machine: HeldPlace) -> Capabilities:
        if machine.name == self.dark:
            raise HostError("no route to it")
        return self.cpu


def reaching(address: str, most: int, tags: str = "labgrid:mbec=yes") -> Reaching:
    lab = Reaching(parse_tags(tags), Login(), address, 0)
    lab.want(most)
    lab.capabilities()
    return lab


def test_a_lost_place_is_replaced_by_a_free_one(
    address: str, tmp_path: Path, session: Coordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = reaching(address.replace("127.0.0.1", "localhost"), 1)
    lost = lab.mine("6.12.8", tmp_path).name
    assert lab.replace()
    (now,) = lab.machines
    assert now.name != lost and lab.mine("6.12.8", tmp_path).name == now.name
    eventually(lambda: free(session) == set(TAGS) - {now.name})
    assert f"{lost} is given back, and {now} is acquired in its stead" in capsys.readouterr().err
    lab._coordinator.close()
    eventually(lambda: free(session) == set(TAGS))


def test_a_place_that_does_not_answer_either_is_no_replacement(
    address: str, tmp_path: Path, session: Coordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = reaching(address.replace("127.0.0.1", "localhost"), 1, "labgrid:cpu=icelake")
    lost = lab.mine("6.12.8", tmp_path).name
    lab.dark = ({"lab1", "lab2"} - {lost}).pop()
    assert not lab.replace()
    said = capsys.readouterr().err
    assert f"{lab.dark} is left out: no route to it" in said and "no place in its stead" in said
    eventually(lambda: free(session) == set(TAGS))
    lab._coordinator.close()


def test_a_place_of_another_cpu_is_no_replacement(
    address: str, tmp_path: Path, session: Coordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = reaching(address.replace("127.0.0.1", "localhost"), 1, "labgrid:cpu=icelake")
    lab.mine("6.12.8", tmp_path)
    lab.cpu = Capabilities({}, vmx=True, maxphyaddr=46)
    assert not lab.replace()
    assert "is left out: its CPU is another one" in capsys.readouterr().err
    eventually(lambda: free(session) == set(TAGS))
    lab._coordinator.close()


def test_machines_with_addresses_have_no_replacement(tmp_path: Path) -> None:
    lab = Lab.of("lab1,lab2", None, None, None)
    lab.mine("6.12.8", tmp_path)
    assert not lab.replace()


@pytest.mark.parametrize("own", [True, False], ids=["one's own", "free"])
def test_a_guest_is_watched_on_a_place_that_is_ones_own_or_free(address: str, session: Coordinator, own: bool) -> None:
    """The place that the same user has from elsewhere is not given back."""
    if own:
        session.acquire(parse_tags("labgrid:name=lab1"), 1, 0)
    lab = Lab.of("labgrid:name=lab1", None, None, None, address.replace("127.0.0.1", "localhost"))
    assert lab.watched().name == "lab1"
    eventually(lambda: session.holds("lab1"))
    lab._coordinator.close()  # type: ignore[attr-defined]
    if own:
        assert session.holds("lab1")
    else:
        eventually(lambda: free(session) == set(TAGS))


def test_a_guest_is_watched_on_one_place(address: str) -> None:
    lab = Lab.of("labgrid:cpu=icelake", None, None, None, address)
    with pytest.raises(InputError, match=r"labgrid has lab1, lab2 with cpu=icelake: .* add name=lab1, or another"):
        lab.watched()
    lab._coordinator.close()  # type: ignore[attr-defined]


def test_no_coordinator_there(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("labgrid", reason="labgrid is not in this virtual environment: make setup brings it")
    assert main.main(["doctor", "--host", "labgrid:cpu=icelake", "--coordinator", "127.0.0.1:9"]) == 4
    said = capsys.readouterr().err
    assert "no labgrid coordinator answers at 127.0.0.1:9" in said and "--coordinator" in said
    assert said.count("\n") == 1


def test_without_labgrid_the_mend_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("labgrid"):
            raise ModuleNotFoundError(f"No module named {name!r}", name="labgrid")
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert main.main(["validate", "--host", "labgrid:cpu=icelake", "--dry-run"]) == 4
    said = capsys.readouterr().err
    assert (
        said
        == f"kvmirror: places of a lab need labgrid, and Python's module 'labgrid' is not there: {coordinator.MEND}\n"
    )


def test_tags_are_looked_at_before_labgrid() -> None:
    with pytest.raises(InputError, match="is no tag"):
        Lab.of("labgrid:icelake", None, None, None)
