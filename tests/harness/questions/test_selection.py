"""What the user types is understood, or refused with the mend."""

from pathlib import Path

import pytest

from harness.errors import InputError
from harness.questions import core, selection
from kvmodel.question.vector import AccessVector


def test_levels() -> None:
    assert selection.levels("0,11,16-18,17", 18) == [0, 11, 16, 17, 18]


@pytest.mark.parametrize(
    ("text", "reason"), [("19", "level 19 is unknown"), ("a", "is no level"), ("5-3", "backwards"), ("", "is no level")]
)
def test_levels_that_are_none(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        selection.levels(text, 18)


def test_params() -> None:
    assert selection.params("all") == [None, False, True]
    assert selection.params("1,unset") == [True, None]
    with pytest.raises(InputError, match="'yes' is not one of"):
        selection.params("yes")


def test_vectors_by_id_part_and_file(tmp_path: Path) -> None:
    plain = AccessVector()
    (tmp_path / "ids").write_text(plain.id + "\n" + AccessVector(cpl=3).id + "\n")
    assert selection.vector_list([plain.id, plain.id]) == [plain]
    assert selection.vector_list([f"@{tmp_path / 'ids'}"]) == [plain, AccessVector(cpl=3)]
    assert len(selection.vector_list(["thin"])) > 10
    assert len(selection.vector_list(["permissions_4k"])) == 12288
    assert selection.vector_list(["e4k.cpl3"]) == [AccessVector(cpl=3)]
    with pytest.raises(InputError, match="vector file"):
        selection.vector_list([f"@{tmp_path / 'none'}"])


def test_a_name_that_is_none_gets_the_nearest_and_the_whole_list() -> None:
    with pytest.raises(InputError, match=r"^'permision_4k' names no vectors: did you mean permissions_4k") as told:
        selection.vector_list(["permision_4k"])
    assert "trace_formats" in str(told.value)
    with pytest.raises(InputError, match=r"'l1=abc' is no field of an access of L2.*kvmirror vectors"):
        selection.vector_list(["e4k.l1=abc"])


def test_regress_has_some_of_every_part() -> None:
    asked = {v.id for v in core.named("regress") or ()}
    for name in core.PARTS:
        assert any(v.id in asked for v in core.named(name) or ()), name
    assert asked <= {v.id for v in core.named("full") or ()}
    assert 2000 < len(asked) < 8000
