"""Records are the same bytes in Python and in C."""

import subprocess
from pathlib import Path

import pytest

from harness import protocol


def test_records_round_trip() -> None:
    packed = protocol.HEADER.pack(magic=protocol.MAGIC, msrs=tuple(range(protocol.MSR_COUNT)), deadline=7)
    header = protocol.HEADER.unpack(packed)
    assert (header["magic"], header["deadline"], header["msrs"]) == (protocol.MAGIC, 7, tuple(range(18)))


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(KeyError, match="colour"):
        protocol.VECTOR.pack(colour=1)


def test_c_agrees_on_every_offset(tmp_path: Path) -> None:
    (tmp_path / "p.h").write_text(protocol.c_header())
    lines = ["#include <stdio.h>", "#include <stddef.h>", '#include "p.h"', "int main(void) {"]
    expected = []
    for record in (protocol.HEADER, protocol.VECTOR, protocol.OBSERVATION):
        offset = 0
        for f, n, name, _ in record.rows:
            lines.append(f'printf("%zu\\n", offsetof(struct {record.name}, {name}));')
            expected.append(offset)
            offset += n * {"Q": 8, "I": 4, "H": 2, "B": 1}[f]
        lines.append(f'printf("%zu\\n", sizeof(struct {record.name}));')
        expected.append(record.size)
    (tmp_path / "p.c").write_text("\n".join([*lines, "}"]))
    subprocess.run(["gcc", "-o", tmp_path / "p", tmp_path / "p.c"], check=True)
    out = subprocess.run([tmp_path / "p"], check=True, capture_output=True, text=True).stdout
    assert [int(x) for x in out.split()] == expected
