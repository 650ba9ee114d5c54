"""The page: complete, small, fetches nothing, and shows foreign text as text."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.report import facts, grid, html
from harness.results.journal import Journal
from tests.harness.report import hostile, synthetic


class Page(HTMLParser):
    """A page's elements, attributes and texts, by a reader that is not ours."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.text.append(data)


def render(path: Path) -> str:
    with Journal(path) as journal:
        report = facts.load(journal)
        return html.render(report, grid.gather(journal, report))


@pytest.fixture(scope="module")
def source(journal_path: Path) -> str:
    return render(journal_path)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(hostile.make(tmp_path_factory.mktemp("hostile") / "j"))


def decode(data: dict) -> dict[str, list[int]]:  # type: ignore[type-arg]
    """Vector ids and their answers by column: what the page's script does, written anew."""
    value = {c: n for n, c in enumerate(grid.DIGITS)}
    histories = [[a for a, count in zip(h[::2], h[1::2], strict=True) for _ in range(count)] for h in data["histories"]]
    out = {}
    for shape in data["shapes"]:
        digits = iter(shape["digits"])
        for history in shape["history"]:
            tokens = []
            for table, width in zip(shape["tokens"], shape["widths"], strict=True):
                number = 0
                for _ in range(width):
                    number = number * 64 + value[next(digits)]
                tokens.append(table[number])
            out[".".join(tokens)] = histories[history]
        assert next(digits, None) is None
    return out


def island(page: Page) -> dict:  # type: ignore[type-arg]
    _, data, _ = page.scripts
    found: dict = json.loads(data)  # type: ignore[type-arg]
    return found


def test_every_answer_of_the_run_is_in_the_page(source: str, journal_path: Path) -> None:
    data = island(Page(source))
    answers = decode(data)
    columns = {tuple(c): n for n, c in enumerate(data["cells"])}
    with Journal(journal_path) as journal:
        rows = list(journal.answers(1))
    assert rows
    for key, answer in rows:
        kind, seen, predicted, contract, marks = data["answers"][answers[answer.vector.id][columns[key.cell]]]
        assert data["kinds"][kind] == answer.seen.kind.value
        assert data["texts"][seen] == str(answer.seen)
        assert data["texts"][predicted] == str(answer.predicted)
        assert marks == answer.verdict.marks.value
        if isinstance(answer.contract, tuple):
            assert [r for _, r, _ in data["contracts"][contract]] == [a.rule for a in answer.contract]
        else:
            assert answer.contract is not None
            assert answer.contract.rule in data["contracts"][contract][0][0]


def test_it_fetches_nothing_and_runs_only_its_own_script(source: str) -> None:
    page = Page(source)
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        if "href" in attributes:
            assert (attributes["href"] or "").startswith("#")
    assert "@import" not in source and "url(" not in source
    (policy,) = [a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    code = page.scripts[-1]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert policy and f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_links_lead_somewhere(source: str) -> None:
    page = Page(source)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        if "href" in attributes:
            assert (attributes["href"] or "")[1:] in ids
        for name in ("aria-labelledby",):
            if name in attributes:
                assert attributes[name] in ids


def test_it_says_how_a_finding_was_confirmed_and_that_it_moved(report: facts.Report, journal_path: Path) -> None:
    told = copy.deepcopy(report)
    view = told.findings[0]
    view.finding = replace(view.finding, confirmed="confirmed 3/3 alone")
    view.remark, view.moved = "known", "first at level 7, was 9"
    with Journal(journal_path) as journal:
        text = " ".join(" ".join(Page(html.render(told, grid.gather(journal, told))).text).split())
    assert "(confirmed 3/3 alone)" in text and "(first at level 7, was 9)" in text


def test_it_says_what_changes_without_a_patch(report: facts.Report, journal_path: Path) -> None:
    told = copy.deepcopy(report)
    told.patches[0].left_out = ["vector v: EXIT; without the patch DONE", "mmu/spte.c make_spte: more"]
    with Journal(journal_path) as journal:
        text = " ".join(" ".join(Page(html.render(told, grid.gather(journal, told))).text).split())
    assert "patch 1 vector v: EXIT; without the patch DONE mmu/spte.c make_spte: more" in text


def test_it_says_what_a_reviewer_asks(source: str, report: facts.Report) -> None:
    text = " ".join(" ".join(Page(source).text).split())
    for patch in report.patches:
        assert patch.subject in text
    for view in report.findings:
        assert f"{view.finding.name}: {view.finding.title}" in text
        assert view.command in text
        assert view.finding.cause in text
    for rule in report.rules:
        assert rule.name in text and rule.text in text
    for fact in ("6.12.8", "11.1.3", "corei7_icelake_u", "stepping", "microcode"):
        assert fact in text
    assert sum(t == "svg" for t, _ in Page(source).tags) >= 4


def test_foreign_text_is_text(nasty: str) -> None:
    page = Page(nasty)
    assert [t for t, _ in page.tags].count("script") == 3
    assert not [t for t, _ in page.tags if t == "img"]
    assert not any(name.startswith("on") for _, a in page.tags for name in a)
    text = "".join(page.text)
    assert hostile.SCRIPT in text
    assert "\\x1b[2J" in text and "\\u202e" in text and "\\ud800" in text
    assert "{{ 7*7 }}" in text and "49" not in re.findall(r"SKIP \]\]> --> (\S+)", text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e\ud800-\udfff]", nasty)
    assert "more characters)" in text
    assert hostile.LONG not in nasty
    nasty.encode("utf-8")


def test_notes_are_in_the_data_as_text(nasty: str) -> None:
    texts = island(Page(nasty))["texts"]
    assert any(hostile.SCRIPT in t for t in texts)
    assert max(map(len, texts)) < 400


def test_a_large_run_makes_a_small_page(tmp_path: Path) -> None:
    from harness.questions import core

    asked = core.core()[::2]
    cells = [(level, param) for level in (0, 11, 13, 15, 18) for param in ("unset", "1") if level or param == "unset"]
    path = synthetic.make(tmp_path / "j", asked=asked, cells=cells)
    page = render(path)
    assert len(decode(island(Page(page)))) == len(asked)
    # The ids alone would be a megabyte; every answer of 80,000 fits into less.
    assert len(page) < 800_000


def test_every_colour_has_a_letter(source: str) -> None:
    from harness.report.pictures import LETTERS, MEANINGS
    from kvmodel.question.outcome import Kind

    assert set(LETTERS) == set(MEANINGS) == set(Kind)
    assert len(set(LETTERS.values())) == len(LETTERS)
    for kind in Kind:
        assert source.count(f"--k-{kind.value}:") == 2  # light and dark


def test_two_runs_of_one_journal_differ_only_where_the_runs_do(journal_path: Path, source: str) -> None:
    assert render(journal_path) == source
