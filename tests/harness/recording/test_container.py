"""A recording's file: the same bytes for the same run, and every file that is none refused by name."""

from __future__ import annotations

import json
import lzma
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.recording import container
from tests.harness.recording import made


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole.kvm"
    path.write_bytes(container.packed([{"run": 1}, {"cell": [1, 2, 3]}]))
    return path


def test_what_was_packed_is_unpacked(whole: Path) -> None:
    assert list(container.unpacked(whole).values()) == [{"run": 1}, {"cell": [1, 2, 3]}]
    assert container.is_recording(whole)


def test_the_same_lines_are_the_same_bytes() -> None:
    assert container.packed([{"a": 1, "b": 2}]) == container.packed([{"a": 1, "b": 2}])
    assert container.packed([{"a": 1}]) != container.packed([{"a": 2}])


def altered(data: bytes) -> bytes:
    """One digit of the text is another; the xz file is sound."""
    text = lzma.decompress(data)
    return lzma.compress(text.replace(b"[1,2,3]", b"[1,2,4]"))


def without_end(data: bytes) -> bytes:
    """The last lines are gone; the xz file is sound."""
    return lzma.compress(b"".join(lzma.decompress(data).splitlines(keepends=True)[:-1]))


def newer(data: bytes) -> bytes:
    return lzma.compress(lzma.decompress(data).replace(b'"version":1', b'"version":2'))


def first_line(text: bytes) -> Callable[[bytes], bytes]:
    return lambda data: lzma.compress(text + b"\n" + lzma.decompress(data))


def bomb(data: bytes) -> bytes:
    """Some 40 KB of which a quarter of a GiB and more comes."""
    head = lzma.decompress(data).splitlines(keepends=True)[0]
    return lzma.compress(head + b"0" * (container.EXPANDED_MAX + 1), preset=1)


def hungry(data: bytes) -> bytes:
    """A dictionary larger than what unpacking may take."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 256 << 20}]
    return lzma.compress(lzma.decompress(data), filters=filters)


REFUSED = {
    "truncated": (lambda data: data[: len(data) // 2], "it is truncated"),
    "without its last lines": (without_end, "it is truncated: its last line is not its checksum"),
    "altered": (altered, "it was altered"),
    "a byte turned": (lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:], "it is damaged"),
    "newer": (newer, r"of a newer kvmirror \(version 2 of the format, and this one reads 1\); read it with a kvmirror"),
    "no version": (
        lambda data: lzma.compress(lzma.decompress(data).replace(b'"version":1', b'"version":"x"')),
        "its version",
    ),
    "bomb": (bomb, "unpack to more than 268,435,456: no recording does"),
    "hungry": (hungry, "more memory than any recording needs"),
    "behind its end": (lambda data: data + b"more", "4 bytes follow its end"),
    "another xz file": (lambda data: lzma.compress(b"Subject: [PATCH 01/18]\n"), "an xz file, but not a recording"),
    "xz of nothing": (lambda data: lzma.compress(b""), "an xz file, but not a recording"),
    "deep": (first_line(b"[" * 100_000), "an xz file, but not a recording"),
    "no xz file": (lambda data: b"PK\x03\x04 and more", "it is not a recording"),
    "empty": (lambda data: b"", "it is empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_recording_is_refused_by_name(name: str, whole: Path) -> None:
    change, reason = REFUSED[name]
    whole.write_bytes(change(whole.read_bytes()))
    with pytest.raises(InputError, match=reason) as refused:
        list(container.unpacked(whole).values())
    assert str(refused.value).startswith(f"recording {whole}: ") and "; " in str(refused.value)


def test_a_file_that_is_absurdly_large_is_not_read(whole: Path) -> None:
    with whole.open("r+b") as file:
        file.truncate(container.PACKED_MAX + 1)
    with pytest.raises(InputError, match="no recording has more than"):
        container.unpacked(whole)


def test_a_line_that_is_absurdly_long_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "LINE_MAX", 100)
    path = tmp_path / "long.kvm"
    path.write_bytes(container.packed([{"cell": "x" * 100}]))
    with pytest.raises(InputError, match="a line of it has 112 bytes"):
        list(container.unpacked(path).values())


@pytest.mark.parametrize("text", [b"{", b"NaN", b"[" * 50_000, b'"\xff"', b'{"run":1,"run":2}'])
def test_a_line_that_is_no_json_is_refused(text: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a line of it is no JSON"):
        container.decoded(tmp_path / "a.kvm", text)


def test_a_journal_is_told_what_to_do_with_it(tmp_path: Path) -> None:
    path = made.journal(tmp_path / "j.sqlite")
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode=DELETE")
    with pytest.raises(InputError, match="it is a journal; 'kvmirror record --journal"):
        container.unpacked(path)
    assert not container.is_recording(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        container.unpacked(tmp_path / "gone.kvm")
    assert not container.is_recording(tmp_path / "gone.kvm")


def test_it_is_json_that_other_tools_read(whole: Path) -> None:
    rows = lzma.decompress(whole.read_bytes()).decode("ascii").splitlines()
    assert [next(iter(json.loads(row))) for row in rows] == ["format", "run", "cell", "sha256"]
