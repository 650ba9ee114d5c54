"""Table, pictures and page of made-up results."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree

import pytest

from harness.bench import page, pictures, table
from harness.bench.kinds import KINDS, OTHER, by_kind, runs_of
from harness.bench.result import Measured, Point, Result
from harness.bench.variants import VARIANTS, Kernel
from kvmodel.machine.exits import Exit, Mix

READ, RESUME, TICK = Exit("L1", "VMREAD"), Exit("L1", "VMRESUME"), Exit("L1", "EXTERNAL_INTERRUPT")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def result() -> Result:
    first = Measured(VARIANTS[0], 100, [Counter({READ: 60, RESUME: 12, TICK: 3})] * 3, [(75, 76)])
    first.finding, first.avoided, first.call = "L2 livelock", True, [READ, READ, RESUME]
    last = Measured(VARIANTS[5], 100, [Counter({RESUME: 3})] * 3, predicted=Counter({RESUME: 4}))
    gone = Measured(VARIANTS[3], 100, missing="no <MBEC>")
    curve = [
        Point("hypercalls", x, {"software": 24 + 10 * x, "mbec-evmcs": 2 * x}, {}) for x in (0, 1 / 4, 1 / 2, 1, 2)
    ]
    return Result(Kernel(18, True), [first, gone, last], curve, {"qemu": "11"})


def test_every_exit_has_a_kind() -> None:
    found = by_kind({READ: 3, TICK: 1, Exit("L1", "CPUID"): 2})
    assert found[KINDS[READ]] == 3 and found[OTHER] == 3 and sum(found.values()) == 6


def test_equal_exits_in_a_row_are_counted() -> None:
    assert runs_of([READ, READ, RESUME, READ]) == "2 x VMREAD of L1, VMRESUME of L1, VMREAD of L1"
    assert runs_of([]) == "no exit at all"


def test_the_table_says_figures_ratios_cover_and_what_is_missing(result: Result) -> None:
    text = "\n".join(table.lines(Mix(100, hypercall_every=4), [result]))
    for words in ("level 18, parameter 1", "one in 4 makes a hypercall", "24.0 x", "1,200,000 (1 x)", "50,000 (24 x)",
                  "mbec: not run: no <MBEC>", "software: kept from running as it is by a finding: L2 livelock",
                  "mbec-evmcs: drift: L1 VMRESUME: the mirror has 4, 3 were counted",
                  "2 x VMREAD of L1, VMRESUME of L1", "1/4 hypercalls a system call",
                  "mbec-evmcs: 24 x lies at 0.6"):  # fmt: skip
        assert words in text, words
    assert "EXTERNAL" not in text


def test_bars_are_as_long_as_their_exits(result: Result) -> None:
    root = ElementTree.fromstring(str(pictures.bars([result])))
    widths = {
        (box.findtext(f"{SVG}title") or "").partition(" ")[0]: float(box.attrib["width"])
        for box in root.iter(f"{SVG}rect")
        if box.find(f"{SVG}title") is not None and "VMRESUME" in (box.findtext(f"{SVG}title") or "")
    }
    assert widths["software:"] == pytest.approx(4 * widths["mbec-evmcs:"], abs=0.02)
    texts = [node.text or "" for node in root.iter(f"{SVG}text")]
    assert any("24.0 x fewer; the cover 24 x" in text for text in texts)
    assert any(text.endswith("*") for text in texts) and any("fault of this kernel avoided" in text for text in texts)


def test_a_curve_has_a_line_a_variant_and_the_covers_ratio(result: Result) -> None:
    root = ElementTree.fromstring(str(pictures.curve(result.curve, "hypercalls")))
    assert len(list(root.iter(f"{SVG}path"))) == 1
    assert len(list(root.iter(f"{SVG}circle"))) == 4  # with no hypercall there is no exit left to divide by
    texts = [node.text or "" for node in root.iter(f"{SVG}text")]
    assert "the cover's 24 x" in texts and any(text.startswith("mbec-evmcs: 24 x at 0.6") for text in texts)
    assert str(pictures.curve(result.curve, "code loads")) == ""


def test_both_pictures_are_one_file(result: Result) -> None:
    root = ElementTree.fromstring(str(pictures.both([result])))
    upper, lower = root.findall(f"{SVG}svg")
    assert float(lower.attrib["y"]) == float(upper.attrib["height"])
    result.curve = []
    assert ElementTree.fromstring(str(pictures.both([result]))).find(f"{SVG}svg") is None


def test_the_page_fetches_nothing_and_escapes_what_is_foreign(result: Result) -> None:
    text = page.render(Mix(), [result], 3, {"kernel": "<script>"})
    assert "no &lt;MBEC&gt;" in text and "<script" not in text and "src=" not in text and "href" not in text
    assert text.count("<svg") == 2


def test_a_kernel_on_which_nothing_ran_still_makes_a_page() -> None:
    empty = Result(Kernel(0, None, "6.12.8"), [Measured(VARIANTS[3], 100, missing="not offered")])
    assert "not run: not offered" in "\n".join(table.lines(Mix(), [empty]))
    ElementTree.fromstring(str(pictures.bars([empty])))
