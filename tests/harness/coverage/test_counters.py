"""Counters: the host's stream, sums, and the lines that the real gcov makes of them."""

from __future__ import annotations

import struct
from array import array
from pathlib import Path

import pytest

from harness.coverage import counters
from harness.coverage.build import FLAGS, Instrumented
from harness.coverage.counters import ARCS, FUNCTION, Counters, Function, Object
from harness.errors import HostError, InfraError
from harness.process import programs

PROGRAM = """\
static volatile int sum;

static inline void pick(int n)
{
	if (n > 2)
		sum += n;
	else
		sum -= n;
}

int main(int argc, char **argv)
{
	for (int i = 0; i < 5; i++)
		pick(i);
	if (argc > 1)
		pick(argc);
	return 0;
}
"""


def stream(name: str, *functions: tuple[int, list[int]], stamp: int = 9) -> bytes:
    """As the host's file has an object; each function an ident and its counters."""
    text = name.encode()
    text += b"\0" * (-len(text) % 4)
    data = struct.pack("<5I", len(text) // 4, 1, stamp, 3, len(functions)) + text
    for ident, values in functions:
        data += struct.pack("<4I", ident, 5, 6, len(values)) + struct.pack(f"<{len(values)}q", *values)
    return data


def test_the_stream_is_read_object_by_object() -> None:
    found = counters.parse(stream("/b/a.gcda", (1, [2, 3]), (4, [5])) + stream("/b/longer.gcda", (1, [1 << 40])))
    assert list(found) == ["/b/a.gcda", "/b/longer.gcda"]
    assert found["/b/a.gcda"].functions == (Function(1, 5, 6, 2), Function(4, 5, 6, 1))
    assert list(found["/b/a.gcda"].values) == [2, 3, 5]
    assert list(found["/b/longer.gcda"].values) == [1 << 40]


def test_an_object_that_came_back_counts_on() -> None:
    found = counters.parse(stream("a", (1, [2, 3])) + stream("a", (1, [10, 0])))
    assert list(found["a"].values) == [12, 3]


@pytest.mark.parametrize("left", [3, 12, 24, 36, 47])
def test_a_stream_that_is_cut_short_is_refused(left: int) -> None:
    with pytest.raises(HostError, match="cannot be read"):
        counters.parse(stream("a", (1, [2, 3]))[:left])


def test_sums_and_differences() -> None:
    total: Counters = {}
    counters.add(total, counters.parse(stream("a", (1, [2, 3]))))
    counters.add(total, counters.parse(stream("a", (1, [1, 1])) + stream("b", (1, [4]))))
    counters.add(total, counters.parse(stream("a", (1, [0, 4]))), -1)
    assert {name: list(one.values) for name, one in total.items()} == {"a": [3, 0], "b": [4]}


@pytest.mark.parametrize("other", [stream("a", (1, [2, 3]), stamp=8), stream("a", (2, [2, 3]))])
def test_two_builds_are_not_added(other: bytes) -> None:
    total = counters.parse(stream("a", (1, [2, 3])))
    with pytest.raises(InfraError, match="two builds"):
        counters.add(total, counters.parse(other))


def of_gcda(data: bytes) -> Object:
    """What gcc's own run-time library wrote, as the host would give it."""
    _, version, stamp, checksum = struct.unpack_from("<4I", data)
    at, idents, functions, values = 16, (0, 0, 0), [], array("q")
    while at + 8 <= len(data):
        tag, length = struct.unpack_from("<Ii", data, at)
        at += 8
        if tag == FUNCTION and length:
            idents = struct.unpack_from("<3I", data, at)
        elif tag == ARCS:  # a negative length: so many zeros, not written
            values.frombytes(data[at : at + length] if length > 0 else bytes(-length))
            functions.append(Function(*idents, abs(length) // 8))
        at += max(length, 0)
    return Object(version, stamp, checksum, tuple(functions), values)


@pytest.fixture
def built(tmp_path: Path) -> tuple[Instrumented, Object]:
    """A small program, compiled, run once without arguments."""
    build = tmp_path / "build"
    (build / "dir").mkdir(parents=True)
    (tmp_path / "src").mkdir()
    source = tmp_path / "src" / "a.c"
    source.write_text(PROGRAM)
    programs.run(["gcc", "-O2", *FLAGS.split(), "-c", "-o", "dir/a.o", source], cwd=build)
    programs.run(["gcc", "--coverage", "-o", "a", "dir/a.o"], cwd=build)
    programs.run([build / "a"], cwd=build)
    modules = Instrumented(tmp_path / "entry", str(tmp_path / "src"), str(build))
    notes = tmp_path / "entry" / "notes" / "dir"
    notes.mkdir(parents=True)
    (build / "dir" / "a.gcno").rename(notes / "a.gcno")
    return modules, of_gcda((build / "dir" / "a.gcda").read_bytes())


def test_gcov_makes_lines_of_them(built: tuple[Instrumented, Object]) -> None:
    modules, one = built
    found = counters.lines({f"{modules.build_dir}/dir/../dir/a.gcda": one}, modules)
    counts = {number: sum(line.count for line in copies) for (path, number), copies in found.items() if path == "a.c"}
    assert (counts[6], counts[8], counts[14], counts[16]) == (2, 3, 5, 0)
    assert counts.keys().isdisjoint({2, 4, 10})
    (condition,) = found["a.c", 15]
    assert sorted(condition.ways) == [0, 1]
    # An inline function is one function, wherever it is called.
    (inlined,) = found["a.c", 5]
    assert (inlined.count, sorted(inlined.ways)) == (5, [2, 3])


def test_twice_as_much_is_twice_the_lines(built: tuple[Instrumented, Object]) -> None:
    modules, one = built
    found = counters.lines({f"{modules.build_dir}/dir/a.gcda": one.plus(one)}, modules)
    assert sum(line.count for line in found["a.c", 6]) == 4


def test_an_object_that_counted_nothing_has_its_lines(built: tuple[Instrumented, Object]) -> None:
    found = counters.lines({}, built[0])
    assert ("a.c", 5) in found
    assert not any(line.count for copies in found.values() for line in copies)


def test_counters_of_another_build_are_refused(built: tuple[Instrumented, Object]) -> None:
    modules, one = built
    other = Object(one.version, one.stamp + 1, one.checksum, one.functions, one.values)
    with pytest.raises(InfraError, match="gcov does not take"):
        counters.lines({f"{modules.build_dir}/dir/a.gcda": other}, modules)
