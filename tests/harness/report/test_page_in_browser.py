"""The page in a real browser: the matrix, the filters and the keyboard, two widths, light and dark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from harness.questions import core
from harness.report import facts, grid, html
from harness.results import Journal, Mark
from kvmodel.question.outcome import Kind
from kvmodel.question.vector import AccessVector
from tests.harness.report import hostile, synthetic
from tests.harness.report.browser import Browser

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Leaves of text that lie on one another, inside the series table, the findings and the matrix.
OVERLAPS = """(() => {
  const boxes = [...document.querySelectorAll(
    'h1, h2, h3, p.verdict, .tiles li, .series td, .finding dt, .finding dd, table.matrix button, .filters label')]
    .map((e) => [e, e.getBoundingClientRect()]).filter(([, r]) => r.width && r.height);
  let found = 0;
  for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
    const [a, r] = boxes[i], [b, s] = boxes[j];
    if (a.contains(b) || b.contains(a)) continue;
    const w = Math.min(r.right, s.right) - Math.max(r.left, s.left);
    const h = Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top);
    if (w > 1 && h > 1) found++;
  }
  return found;
})()"""
CUT = """[...document.querySelectorAll('table.matrix button')]
  .filter((b) => b.scrollWidth > b.clientWidth + 1).length"""


def write(journal_path: Path, to: Path) -> facts.Report:
    with Journal(journal_path) as journal:
        report = facts.load(journal)
        to.write_text(html.render(report, grid.gather(journal, report)), encoding="utf-8")
    return report


@pytest.fixture(scope="module")
def page(journal_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write(journal_path, path)
    return path


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.fixture
def browser(window: Browser) -> Iterator[Browser]:
    """The one window; whatever a test did in it, the page said nothing on the console and asked the network nothing."""
    yield window
    assert window.problems() == []


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_overlaps_or_overflows(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width, 900, dark)
    assert browser.js(OVERFLOW) <= 0
    assert browser.js(OVERLAPS) == 0
    assert browser.js(CUT) == 0


def test_the_measures_see_what_they_are_for(browser: Browser, page: Path) -> None:
    browser.open(page, 1280, 900)
    for spoil, measure in (
        ("h1 { width: 3000px }", OVERFLOW),
        ("h2 { margin-bottom: -80px }", OVERLAPS),
        ("#matrix button { width: 4px; min-width: 0; white-space: nowrap; overflow: hidden }", CUT),
    ):
        assert browser.js(measure) <= 0
        browser.js(f"document.head.appendChild(document.createElement('style')).append({json.dumps(spoil)})")
        assert browser.js(measure) > 0, spoil
        browser.js("document.head.lastElementChild.remove()")


def test_what_a_page_complains_of_or_asks_for_is_noticed(window: Browser, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(
        "<html data-ready=1><link rel=icon href=data:,><img src=http://127.0.0.1:9/x.png>"
        "<script>console.info('a word'); setTimeout(() => { throw Error('a fault') })</script>"
    )
    window.open(path, 390, 900)
    found = "\n".join(window.problems())
    for part in ("asked for http://127.0.0.1:9/x.png", "a word", "a fault"):
        assert part in found
    assert window.problems() == []


@pytest.mark.parametrize("width", [390, 1280])
def test_a_field_that_is_open_fits(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width, 900)
    browser.choose("f-mark", "FINDING")
    browser.css("#matrix button:not(.empty)").click()
    assert browser.id("detail").find_elements(By.CLASS_NAME, "answer")
    assert browser.js(OVERFLOW) <= 0
    assert browser.js(OVERLAPS) == 0


def test_a_screen_reader_is_told_what_each_control_is(browser: Browser, page: Path) -> None:
    browser.open(page, 1280, 900)
    filters = browser.find_elements(By.CSS_SELECTOR, ".filters select, .filters input")
    names = [e.accessible_name for e in filters]
    assert len(names) == len(set(names)) == 9 and all(names)
    assert [e.aria_role for e in filters] == ["combobox"] * 8 + ["searchbox"]
    field = browser.css("#matrix button:not(.empty)")
    leaf, column = str(field.get_attribute("data-key")).split("|")
    assert field.aria_role == "button"
    assert field.accessible_name.startswith(f"{leaf} {column}: ") and " vectors, " in field.accessible_name


def luminance(rgb: list[int]) -> float:
    parts = [(c / 255) / 12.92 if c / 255 <= 0.03928 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read(browser: Browser, page: Path, dark: bool) -> None:
    browser.open(page, 1280, 900, dark)
    pairs = browser.js(
        """['.soft', '.verdict', 'a', '.pill.good', '.pill.warn', '.legend i', 'th'].flatMap((s) => {
          const e = document.querySelector(s); if (!e) return [];
          let b = e; while (b && getComputedStyle(b).backgroundColor === 'rgba(0, 0, 0, 0)') b = b.parentElement;
          return [[s, getComputedStyle(e).color, getComputedStyle(b || document.body).backgroundColor]]; })"""
    )
    assert len(pairs) >= 5
    for what, fore, back in pairs:
        a, b = (luminance([int(n) for n in c[c.index("(") + 1 : -1].split(",")[:3]]) for c in (fore, back))
        assert (max(a, b) + 0.05) / (min(a, b) + 0.05) >= 4.5, (what, fore, back)


def focused(browser: Browser) -> str:
    value: str = browser.js(
        "document.activeElement.dataset.key || document.activeElement.id || document.activeElement.tagName"
    )
    return value


def test_the_matrix_works_from_the_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page, 1280, 900)
    browser.id("f-text").click()
    browser.press(Keys.TAB)
    assert focused(browser) == "----|read"
    browser.press(Keys.DOWN, Keys.DOWN, Keys.RIGHT, Keys.END, Keys.HOME, Keys.RIGHT)
    assert focused(browser) == "-w--|write"
    browser.press(Keys.UP, Keys.UP, Keys.UP)  # the last one leads nowhere
    assert focused(browser) == "----|write"
    browser.press(Keys.ENTER)
    assert "---- write, level 18, parameter 1" in browser.id("detail").text
    assert browser.js("document.activeElement.tagName") == "H3"
    browser.press(Keys.ESCAPE)
    assert focused(browser) == "----|write"
    browser.press(Keys.TAB)
    assert not focused(browser).endswith("|read")  # one stop for the whole matrix


def test_a_field_shows_three_voices_side_by_side(browser: Browser, page: Path, journal_path: Path) -> None:
    browser.open(page, 1280, 900)
    for name in ("f-upper", "f-mbec", "f-size"):
        browser.choose(name, "")
    browser.choose("f-mark", "FINDING")
    shown = browser.id("shown").text
    with Journal(journal_path) as journal:
        rows = [
            a
            for key, a in journal.answers(1, level=18)
            if key.param == "1" and Mark.FINDING in a.verdict.marks and a.vector.id.startswith("e")
        ]
    assert shown.startswith(f"{len(rows)} vectors, {len(rows)} with a finding")
    row = next(a for a in rows if a.seen.kind is Kind.LIVELOCK)
    assert isinstance(row.vector, AccessVector) and isinstance(row.contract, tuple)
    leaf = str(row.vector.leaf)
    field = "fetch U" if row.vector.gp.u and row.vector.gu.u else "fetch S"
    browser.css(f"[data-key='{leaf}|{field}']").click()
    text = browser.id("detail").text
    assert row.vector.id in text
    assert str(row.seen) in text and row.contract[0].rule in text
    tops = browser.js(
        "[...document.querySelector('#detail .voices').children].map((e) => Math.round(e.getBoundingClientRect().top))"
    )
    assert len(tops) == 3 and len(set(tops)) == 1
    assert f"kvmirror run --level 18 --param 1 {row.vector.id}" in text or "kvmirror run --level 18" in text


def test_filters_by_level_parameter_and_text(browser: Browser, page: Path, report: facts.Report) -> None:
    browser.open(page, 1280, 900)
    browser.choose("f-level", "2")
    assert browser.js("[...document.getElementById('f-param').options].map((o) => o.value)") == ["unset"]
    assert ", 0 with a finding" in browser.id("shown").text
    for name in ("f-upper", "f-mbec", "f-size", "f-guest"):
        browser.choose(name, "")
    count = int(browser.id("shown").text.split()[0].replace(",", ""))
    others = int(browser.id("others-count").text)
    (row,) = [r for r in report.rows if r.level == 2]
    assert count + others == row.vectors
    before = browser.id("shown").text
    browser.id("f-text").send_keys("ad1 walk")
    browser.until(f"document.getElementById('shown').textContent !== {json.dumps(before)}")
    fewer = int(browser.id("shown").text.split()[0])
    assert 0 < fewer < count


def test_a_click_on_a_level_opens_it(browser: Browser, page: Path) -> None:
    browser.open(page, 1280, 900)
    browser.css("button[data-level='15'][data-param='0']").click()
    assert browser.js("document.getElementById('f-level').value + document.getElementById('f-param').value") == "150"
    assert browser.js("document.querySelector('#matrix caption').textContent") == "level 15, parameter 0"


def test_questions_that_are_no_single_access_are_listed_when_they_are_opened(browser: Browser, tmp_path: Path) -> None:
    sequences = [v for part in core.SEQUENCES.values() for v in list(part())[:7]]
    asked = [*synthetic.sample(997), *sequences]
    path = tmp_path / "sequences.html"
    write(synthetic.make(tmp_path / "j", asked=asked, cells=[(17, "1"), (18, "1")]), path)
    browser.open(path, 1280, 900)
    rows = "document.getElementById('others').rows.length"
    count = int(browser.id("others-count").text)
    assert count >= len({v.id for v in sequences})
    assert browser.js(rows) == 0
    browser.css("details:has(#others) summary").click()
    browser.until(f"{rows} > 0")
    assert browser.js(rows) == count
    assert sequences[-1].id in browser.id("others").text
    assert browser.js(OVERFLOW) <= 0


def test_a_hostile_series_stays_text(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    write(hostile.make(tmp_path / "j"), path)
    for width in (390, 1280):
        browser.open(path, width, 900)
        browser.js("document.querySelectorAll('#matrix button').forEach((b) => b.click())")
        assert browser.title.startswith("kvmirror: run 1")
        assert browser.js("document.images.length") == 0
        assert browser.js(OVERFLOW) <= 0
        assert browser.js(OVERLAPS) == 0
