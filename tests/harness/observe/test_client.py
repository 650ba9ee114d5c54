"""The small client: its requests, its lines, and the host that warns once a load."""

import json
from typing import Any

import pytest

from harness.build import probe
from harness.errors import HostError
from harness.findings.departures import severity
from harness.findings.group import weight
from harness.hosts.channel import CommandResult
from harness.observe import client
from harness.questions import client as client_vectors
from harness.questions.core import core, full
from kvmodel.question import tally
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.reading import parse
from kvmodel.question.vector import Access, ClientSequence, ClientVector, UserCapsVector, UserMsrVector

SEQUENCE = ClientSequence("long", "s", "2m", ("read", "age", "log", "write"), "eptad0nx")


def line(**changed: Any) -> dict[str, Any]:
    plain = {"result": "done", "step": 0, "exit_reason": 5, "detail": 0, "errno": 0, "warning": None, "spurious": 0}
    return plain | {"dirty": 0, "stats": {"pages_4k": 7, "exits": 9}} | changed


def test_requests() -> None:
    assert client.request(ClientVector("real", Access.RMW, "u")) == "seq real u 4k rmw"
    assert client.request(SEQUENCE) == "seq long s 2m read+age+log+write"
    assert client.request(UserMsrVector(0x48C, ("c0", "kvm"))) == "msr 48c c0+kvm"


def test_answers() -> None:
    done = client.outcome(SEQUENCE, line(dirty=1))
    assert (done.kind, tally.unpack(done.code)["pages_4k"], tally.unpack(done.code)["dirty"]) == (Kind.DONE, 7, 1)
    assert client.outcome(ClientVector(), line()) == Outcome(Kind.DONE)
    value = client.outcome(UserMsrVector(), {"value": 5, "refused": 2})
    assert (value.code, value.defined) == (5 | 2 << 64, (1 << 128) - 1)


@pytest.mark.parametrize(
    ("changed", "kind", "note"),
    [
        ({"result": "timeout", "spurious": 16}, Kind.LIVELOCK, ""),
        ({"result": "timeout", "spurious": 15}, Kind.HOST, "no spurious faults"),
        ({"result": "errno", "errno": 22, "warning": "handle_mmio_page_fault"}, Kind.HOST, "errno 22"),
        ({"result": "warning", "warning": "mark_spte_for_access_track"}, Kind.HOST, "WARN: mark_spte"),
        ({"result": "wrong"}, Kind.HOST, "wrong: KVM exit reason 5"),
    ],
)
def test_what_stops_a_sequence(changed: dict[str, Any], kind: Kind, note: str) -> None:
    seen = client.outcome(SEQUENCE, line(step=3, **changed))
    assert (seen.kind, seen.number) == (kind, 3)
    assert note in seen.note
    assert client.outcome(ClientVector(), line(step=1, **changed)).number == 0


class FakeHost:
    """Answers so many lines a start, and ends with ``status``, its reason on standard error, where one is given."""

    name = "fake"

    def __init__(self, *stops: int | tuple[int, int]) -> None:
        self.stops = list(stops)
        self.asked: list[str] = []

    def run(self, command: str, *, input: bytes, timeout: float) -> CommandResult:
        assert command.endswith("kvmclient run")
        self.asked.append(input.decode())
        stop = self.stops.pop(0)
        count, status = stop if isinstance(stop, tuple) else (stop, 0)
        said = "kvmclient: KVM_SET_SREGS: Invalid argument\n" if status else ""
        return CommandResult(status, (json.dumps(line()) + "\n").encode() * count, said)


def test_the_modules_are_loaded_again_behind_a_warning() -> None:
    host, loads = FakeHost(2, 1), []
    found = client.ask(host, [SEQUENCE] * 3, lambda: loads.append(1))  # type: ignore[arg-type]
    assert [o.kind for o in found] == [Kind.DONE] * 3
    assert len(loads) == 1
    assert [text.count("\n") for text in host.asked] == [3, 1]
    assert client.ask(host, [], lambda: None) == []  # type: ignore[arg-type]


def test_a_request_that_is_refused_blocks_itself_alone() -> None:
    asked = [ClientVector("real"), SEQUENCE, ClientVector("prot"), ClientVector("long")]
    host = FakeHost((1, 4), (1, 4))
    found = client.ask(host, asked, lambda: None)  # type: ignore[arg-type]
    assert [o.kind for o in found] == [Kind.DONE, Kind.BLOCKED, Kind.DONE, Kind.BLOCKED]
    assert found[1].note == "the KVM client could not ask it: KVM_SET_SREGS: Invalid argument"
    assert host.asked[1].splitlines() == [client.request(v) for v in asked[2:]]


def test_a_client_that_says_nothing_blocks_one_vector_at_a_time() -> None:
    found = client.ask(FakeHost(0, 1), [SEQUENCE] * 2, lambda: None)  # type: ignore[arg-type]
    assert [o.kind for o in found] == [Kind.BLOCKED, Kind.DONE]
    assert found[0].note.endswith("no word, exit status 0")


def test_a_request_that_the_client_does_not_know_is_our_own_trouble() -> None:
    with pytest.raises(HostError, match=r"does not know 'seq long s 2m .*Invalid"):
        client.ask(FakeHost((1, 2)), [SEQUENCE] * 2, lambda: None)  # type: ignore[arg-type]


def test_the_space() -> None:
    names = [v.id for part in client_vectors.CLIENT.values() for v in part()]
    assert len(names) == len(set(names)) > 300
    assert all(parse(name).id == name for name in names)
    assert {v.id for v in core()}.isdisjoint(names)
    assert {v.id for v in core()} | set(names) <= {v.id for v in full()}


def test_severities() -> None:
    huge = Outcome(Kind.DONE, tally.pack({"pages_2m": 1}), defined=tally.ALL)
    assert severity(SEQUENCE, huge, Outcome(Kind.DONE, 0, defined=tally.MASK["pages_2m"])) == "mitigation bypassed"
    logged = Outcome(Kind.DONE, tally.pack({"dirty": 1}), defined=tally.MASK["dirty"])
    assert severity(SEQUENCE, huge, logged) == "write missing in the dirty log"
    assert severity(SEQUENCE, Outcome(Kind.LIVELOCK), logged) == "L1 livelock or death"
    warning = Outcome(Kind.HOST, note="WARN: mark_spte_for_access_track")
    assert severity(SEQUENCE, warning, logged) == "host trouble"
    assert weight(SEQUENCE)[0] == 4


def test_the_client_compiles_and_says_how_it_is_used(tmp_path: Any) -> None:
    from harness.build.cache import Cache
    from harness.process import programs

    binary = probe.client(Cache(tmp_path))
    said = programs.run([binary], check=False)
    assert said.returncode == 2
    assert "usage: kvmclient info" in said.stderr


def test_msrs_held_against_each_other_are_one_request_whoever_is_asked() -> None:
    vector = UserCapsVector("mbec-needs-ept", "kvm")
    assert client.request(vector) == "caps kvm"
    assert client.outcome(vector, {"msrs": {"48b": 1 << 54 | 1 << 33}}).code == 0
    broken = client.outcome(vector, {"msrs": {"48b": 1 << 54}})
    assert (broken.code, broken.note) == (1 << 54, "0x48b 0x40000000000000")
    assert client.outcome(vector, {"msrs": {}}).note == "0x48b absent"
