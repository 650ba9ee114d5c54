"""What is printed: the same facts in every format, and foreign text as text."""

from __future__ import annotations

import email
import email.policy
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli.main import main
from harness.compare import html, mail, plain
from harness.compare.comparison import Comparison
from harness.results import Journal
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import Access, AccessVector
from tests.harness.compare.made import BLOCKED, FETCH, LOOP, LOOPS, READ, compared, run
from tests.harness.report import hostile, synthetic
from tests.harness.report.test_html import Page

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\u202e\ud800]")


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that differ in most ways."""
    path = tmp_path_factory.mktemp("runs") / "j.sqlite"
    blocked = AccessVector(access=Access.FETCH, env="hugenx")
    some = synthetic.sample(101)
    synthetic.make(path, asked=[*some, blocked], cells=[(12, "1"), (13, "1"), (15, "1")])
    with Journal(path) as open_journal:
        others = [v for v in synthetic.sample(89) if v not in some]
        synthetic.record(open_journal, [*some[3:], blocked, *others], [(12, "1"), (15, "1")], synthetic.honest)
    return path


@pytest.fixture(scope="module")
def found(journal: Path) -> Comparison:
    return compared("1", "2", journal)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """A hostile run against a good one, from a journal of an evil name, with ids that nobody can parse."""
    folder = tmp_path_factory.mktemp("hostile")
    path = folder / "j\x1b[2J<script>\u202e.sqlite"
    hostile.make(path)
    with Journal(path) as open_journal:
        cells = [(level, "unset") for level in range(9)]
        synthetic.record(open_journal, synthetic.sample(211), cells, synthetic.honest, hostile.PROVENANCE)
    with sqlite3.connect(path) as db:  # an id that the second run was not asked
        evil = db.execute(
            "INSERT INTO vector (name) VALUES (?)", (f"{hostile.SCRIPT}\x1b[2J\nBcc: x@example.org",)
        ).lastrowid
        cell, *rest = db.execute("SELECT cell, seen, predicted, contract, marks FROM result LIMIT 1").fetchone()
        db.execute("INSERT INTO result VALUES (?, ?, ?, ?, ?, ?, NULL)", (cell, evil, *rest))
    db.close()
    return compared(f"{path}:1", f"{path}:2")


def flat(text: str) -> str:
    """Without line ends, and the breaks of ids taken back."""
    return " ".join(text.replace("\\\n", "").split())


def facts(comparison: Comparison) -> Iterator[str]:
    """What every format has to say."""
    yield comparison.verdict
    for section in comparison.sections:
        yield section.title
        for entry in section.entries:
            yield entry.title
            yield entry.count
            yield from entry.facts
            if not entry.again:
                yield from (answer.seen for _, answer in entry.sides)
                yield from (answer.manual for _, answer in entry.sides)
                yield entry.id


def test_the_runs_differ_in_most_ways(found: Comparison) -> None:
    assert {s.key for s in found.sections} >= {"gone", "departs", "blocked", "alone"}


def test_text_mail_and_page_say_the_same(found: Comparison) -> None:
    page = Page(html.render(found))
    texts = [plain.render(found), flat(mail.render(found)), flat(" ".join(page.text))]
    for fact in facts(found):
        for text in texts:
            assert " ".join(fact.split()) in text, fact


def test_the_choice_of_levels_is_stated(found: Comparison, journal: Path) -> None:
    assert "compared: levels 12, 15 (parameter 1)" in plain.render(found)
    assert "compared: 12/1 against 13/1" in plain.render(compared("1@12", "1@13", journal))
    assert "compared: 12/1 against 13/1" in flat(mail.render(compared("1@12", "1@13", journal)))


def test_the_page_fetches_nothing_and_runs_nothing(found: Comparison) -> None:
    source = html.render(found)
    page = Page(source)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "base", "form")
        assert "src" not in attributes and not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert "@import" not in source and "url(" not in source
    anchors = {(a["href"] or "")[1:] for t, a in page.tags if t == "a"}
    assert anchors <= {a.get("id") for _, a in page.tags} and len(anchors) == len(found.sections) + 1


def test_a_mail_is_one_that_a_list_takes(found: Comparison) -> None:
    source = mail.render(found)
    message = email.message_from_string(source, policy=email.policy.default)
    assert message["Subject"] == "kvmirror: behaviour of 1 against 2"
    assert message.get_content_type() == "text/plain"
    assert max(map(len, source.splitlines())) <= 72
    assert not any(line.startswith((">", "From ")) for line in source.splitlines())


def test_hostile_texts_stay_texts(nasty: Comparison) -> None:
    page = Page(html.render(nasty))
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert "document.title" in " ".join(page.text)
    source = mail.render(nasty)
    message = email.message_from_string(source, policy=email.policy.default)
    assert message["Bcc"] is None and max(map(len, source.splitlines())) <= 72
    assert not any(line.startswith("Bcc") for line in source.splitlines())
    for text in (html.render(nasty), plain.render(nasty), source):
        assert not CONTROL.search(text)


def cli(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = main(["compare", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_exit_code_says_whether_runs_differ(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(capsys, "--journal", journal, "1", "1")[0] == 0
    code, out, _ = cli(capsys, "--journal", journal, "1", journal)  # its latest run
    assert code == 1 and out.startswith("A  run 1")
    small = tmp_path / "s"
    run(small, [READ, FETCH, LOOPS])
    run(small, [READ, FETCH])  # what one was not asked is no difference
    assert cli(capsys, "--journal", small, "1", "2")[0] == 0
    run(small, [READ])
    assert cli(capsys, "--journal", small, "2", "3")[0] == 0
    run(small, [READ], seen={READ: BLOCKED})
    assert cli(capsys, "--journal", small, "3", "4")[0] == 1
    run(small, [READ], seen={READ: LOOP})
    assert cli(capsys, "--journal", small, "3", "5")[0] == 1


def test_each_format_is_asked_for(journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "made" / "d.html"
    code, out, err = cli(capsys, "--journal", journal, "--json", "--html", page, "1", "2")
    assert code == 1 and json.loads(out)["schema"] == "kvmirror-compare-1"
    assert page.read_text().startswith("<!doctype html>") and f"wrote {page}" in err
    assert cli(capsys, "--journal", journal, "--html", "-", "1", "2")[1] == page.read_text()
    assert cli(capsys, "--journal", journal, "--mail", "1", "2")[1].startswith("Subject: ")


@pytest.mark.parametrize(
    ("a", "says"),
    [
        ("7", "j.sqlite has no run 7; it has runs 1, 2"),
        ("JOURNAL:3", "j.sqlite has no run 3; it has runs 1, 2"),
        ("nowhere.sqlite", "nowhere.sqlite: the journal nowhere.sqlite is not there; write a run's number"),
        ("FOLDER", "is a folder"),
        ("EMPTY", "is no journal of kvmirror"),
        ("TEXT", "cannot be read as a journal"),
        ("1@11", "1@11: the run has not that level and parameter value; it has 12/1, 13/1, 15/1"),
        ("1@12/0", "it has 12/1"),
        ("1@12/x", "'x' is not one of unset, 0, 1"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], a: str, says: str
) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("no journal at all, but a text\n" * 100)
    named = {
        "JOURNAL": str(journal),
        "FOLDER": str(tmp_path),
        "EMPTY": str(tmp_path / "empty"),
        "TEXT": str(tmp_path / "text"),
    }
    for word, path in named.items():
        a = a.replace(word, path)
    code, out, err = cli(capsys, "--journal", journal, a, "2")
    assert (code, out) == (2, "") and says in err and len(err.splitlines()) == 1
    assert (tmp_path / "empty").stat().st_size == 0  # it was not made a journal


def test_an_interrupted_run_and_an_unheard_answer_are_named(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as open_journal:
        synthetic.record(open_journal, synthetic.sample(401), [(0, "unset")], status="interrupted")
    assert "the run is interrupted" in plain.render(compared("1", "1", path))
    run(path, [READ], seen={READ: Outcome(Kind.BLOCKED)})
    run(path, [READ])
    assert "never ran in A: no reason given" in plain.render(compared("2", "3", path))
