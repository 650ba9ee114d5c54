"""``kvmirror bench exits``: what is asked of which kernel, what is refused, and the exit codes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from harness.bench.result import Measured, Point, Result
from harness.bench.variants import VARIANTS, Kernel, named
from harness.cli import main as cli
from harness.cli.bench import code, kernels, require_named
from harness.errors import GuestError, InputError
from kvmodel.machine.exits import Exit
from tests.harness.series.mail_samples import mail
from tests.harness.series.test_folder import folder

READ = Exit("L1", "VMREAD")


def test_a_level_without_the_parameter_is_one_kernel() -> None:
    found = kernels([0, 2, 3, 18], [False, True], "6.12.8", False)
    assert [(k.level, k.param) for k in found] == [
        (0, None), (2, None), (3, False), (3, True), (18, False), (18, True),
    ]  # fmt: skip
    assert [k.name for k in found[::5]] == ["base 6.12.8", "level 18, parameter 1"]
    assert kernels([0], [False, True], "7.2.13", True)[0].name == "Linux 7.2.13"


def test_variants_come_in_the_tables_order() -> None:
    assert [v.name for v in named(["mbec-evmcs", "software"])] == ["software", "mbec-evmcs"]
    with pytest.raises(InputError, match="variant 'sofware' is unknown: name some of software, "):
        named(["sofware"])


def result(*rows: Measured) -> Result:
    return Result(Kernel(18, True), list(rows))


def ran(number: int, **more: object) -> Measured:
    row = Measured(VARIANTS[number], 100, [Counter({READ: 5})], predicted=Counter({READ: 5}))
    for name, value in more.items():
        setattr(row, name, value)
    return row


def test_exit_codes() -> None:
    assert code([result(ran(0), Measured(VARIANTS[3], 100, missing="not offered"))]) == 0
    assert code([result(ran(0, finding="L2 livelock"))]) == 1
    assert code([result(ran(0, finding="L2 livelock", predicted=Counter({READ: 4})))]) == 3
    assert code([result(ran(0, traced=[READ], foreseen=[]))]) == 3
    drifting = result(ran(0))
    drifting.curve = [Point("hypercalls", 1, {"software": 3.0}, {"software": 2.0})]
    assert code([drifting]) == 3


def test_a_variant_that_was_asked_for_and_ran_nowhere_is_an_error() -> None:
    gone = Measured(VARIANTS[3], 100, missing="this kernel does not offer L1 MBEC")
    require_named([result(ran(0), gone)], None, False)
    require_named([result(ran(0), gone), result(ran(3))], "mbec", False)
    with pytest.raises(GuestError, match="variant mbec ran on none of the kernels: this kernel does not offer"):
        require_named([result(ran(0), gone)], "software,mbec", False)
    with pytest.raises(GuestError, match="variant mbec ran on none"):
        require_named([result(ran(0), gone)], None, True)  # a kernel of the user's own


@pytest.mark.parametrize(
    "words, told",
    [
        ("--variants mbec,foo", "variant 'foo' is unknown"),
        ("--levels 19", "19"),
        ("--params 2", "2"),
        ("--calls 0", "--calls 0: give 1 or more"),
        ("--calls 5000 --load-every 1", "5001 system calls with one in 1 of code loads need 5001"),
        ("--fresh-every -1", "--fresh-every -1: one in N, N is 0 for none"),
        ("--looks 99", "99 fields looked at"),
        ("--runs 0", "--runs 0: give 1 or more"),
        ("--jobs 0", "--jobs 0: give 1 or more"),
        ("--html nowhere/page.html", "nowhere/page.html: the folder nowhere is not there"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_built(
    words: str, told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", "exits", *words.split()]) == 2
    seen = capsys.readouterr()
    assert told in seen.err and seen.err.count("\n") == 1 and not seen.out


def test_a_series_that_is_not_mirrored_is_refused_before_anything_is_built(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["bench", "exits", "--levels", "0", "--series", str(folder(tmp_path / "own", mail()))]) == 2
    assert "bench exits: the mirror mirrors the MBEC series" in capsys.readouterr().err
