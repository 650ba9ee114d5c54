"""CPUs by the names that people know."""

from __future__ import annotations

import pytest

from harness.errors import InputError
from harness.hosts import models


def test_names_are_models_and_all_is_each() -> None:
    assert [m.emulated_as for m in models.named("skylake-x, sapphire-rapids")] == [
        "corei7_skylake_x",
        "sapphire_rapids",
    ]
    assert models.named("all") == list(models.WITH_MBEC)
    assert models.USUAL in models.WITH_MBEC and models.WITHOUT_MBEC not in models.WITH_MBEC


def test_what_is_taken_from_a_cpu_stands_behind_its_name() -> None:
    (model,) = models.named("icelake:no-advanced-info")
    assert (model.emulated_as, model.without) == (models.USUAL.emulated_as, ("advanced-info",))
    assert models.option(model) == " --cpu icelake:no-advanced-info"
    assert models.option(models.USUAL) == ""


@pytest.mark.parametrize("text", ["penryn", "", "icelake,", "haswell", "icelake:no-mbec", "all,icelake"])
def test_an_unknown_name_is_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(InputError, match=r"skylake-x, cannon-lake, icelake, tiger-lake, sapphire-rapids, arrow-lake"):
        models.named(text)


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(InputError, match="icelake is named twice"):
        models.named("icelake,icelake")
