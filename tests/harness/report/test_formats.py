"""JUnit, KTAP, JSON and Markdown, read by readers and schemas that are not ours."""

from __future__ import annotations

import argparse
import copy
import io
import json
import re
import subprocess
import sys
import tarfile
from dataclasses import replace
from html import unescape
from pathlib import Path

import jsonschema
import pytest
from junitparser import JUnitXml

from harness.build import fetch
from harness.build.cache import Cache
from harness.cli.main import validate
from harness.errors import FetchError, KvmirrorError
from harness.findings import Run
from harness.process import programs
from harness.questions import core
from harness.report import baseline, facts, grid, groups, html, junit, ktap, mail, markdown
from harness.report import text as text_of
from harness.results.journal import Journal
from harness.series import folder as series_io
from tests.harness.report import hostile, synthetic

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile.make(tmp_path_factory.mktemp("hostile") / "j")


def documents(path: Path, known: Path | None = None) -> tuple[facts.Report, str, str]:
    with Journal(path) as journal:
        report = facts.load(journal, baseline=known)
        found = groups.gather(journal, report)
    return report, junit.render(report, found), ktap.render(report, found)


def test_every_vector_has_a_group_with_others() -> None:
    found: dict[str, int] = {}
    for name, part in {**core.CORE, **core.BEYOND}.items():
        for vector in part():
            group = groups.name_of(vector)
            found[group] = found.get(group, 0) + 1
            assert group.startswith("seq ") == name.startswith("sequence")
    assert {"msr", "cli", "e4k fetch mbec=on", "seq e4k read mbec=on"} <= set(found)
    assert len(found) < 100


PYTEST = "8.4.2"  # whose source package carries Jenkins' schema
PYTEST_SHA256 = "86c0d0b93306b961d58d62a4db4879f27fe25513d4b969df351abdddb3c30e01"


@pytest.fixture(scope="module")
def junit_schema() -> str:
    """The schema of Jenkins' xUnit plugin, from the registry, kept in the build cache."""

    def download(folder: Path) -> None:
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        programs.run([*argv, "--dest", str(folder), f"pytest=={PYTEST}"], timeout=300, error=FetchError)
        fetch.check(folder / f"pytest-{PYTEST}.tar.gz", PYTEST_SHA256)

    folder = Cache().entry("junit-schema", {"pytest": PYTEST}, download)
    with tarfile.open(folder / f"pytest-{PYTEST}.tar.gz") as tar:
        (member,) = [m for m in tar.getmembers() if m.name.endswith("/junit-10.xsd")]
        file = tar.extractfile(member)
        assert file is not None
        return file.read().decode()


def test_junit_passes_jenkins_schema(junit_schema: str, journal_path: Path, nasty: Path) -> None:
    import xmlschema

    schema = xmlschema.XMLSchema(junit_schema)
    for path in (journal_path, nasty):
        _, text, _ = documents(path)
        schema.validate(io.StringIO(text))
    with pytest.raises(xmlschema.XMLSchemaException):
        schema.validate(io.StringIO(text.replace("<testcase ", "<testcase colour='red' ", 1)))


def test_junit_counts_what_the_run_counted(journal_path: Path) -> None:
    report, text, _ = documents(journal_path)
    suites = list(JUnitXml.fromstring(text.encode()))
    assert len(suites) == 1 + len(report.cells)
    cases = [case for suite in suites for case in suite]
    kinds = [type(r).__name__ for case in cases for r in case.result]
    assert kinds.count("Error") > 0 and kinds.count("Failure") > 0 and kinds.count("Skipped") > 0
    for suite in suites:
        assert suite.tests == len(list(suite))
    by_name = {s.name: s for s in suites}
    assert by_name["level 0, parameter unset"].failures == 0
    assert by_name["level 18, parameter 1"].failures > 0
    assert by_name["level 15, parameter 0"].errors > 0
    assert len({(c.classname, c.name) for c in cases}) == len(cases)


def test_every_format_says_the_same_of_a_finding(journal_path: Path) -> None:
    report, units, tap = documents(journal_path)
    with Journal(journal_path) as journal:
        page = unescape(html.render(report, grid.gather(journal, report)))
    texts = {"junit": unescape(units), "ktap": tap, "html": page}
    texts["markdown"] = re.sub(r"\\(.)", r"\1", unescape(markdown.render(report)))
    texts["mail"] = " ".join(mail.reply(report, series_io.read(), "").split())
    assert report.findings
    for view in report.findings:
        for name, text in texts.items():
            assert view.finding.title in text, (name, view.finding.title)
            assert view.finding.whence in text, (name, view.finding.whence)
        assert view.finding.title.startswith(f"{view.finding.symptom.severity}: ")


def test_a_baseline_makes_findings_known(journal_path: Path, tmp_path: Path) -> None:
    report, before, _ = documents(journal_path)
    known = tmp_path / "known.json"
    baseline.write(known, [v.finding for v in report.findings[1:]], report.levels)
    partly, text, _ = documents(journal_path, known)
    assert [v.known for v in partly.findings] == [False] + [True] * (len(report.findings) - 1)
    assert 0 < text.count("<failure") < before.count("<failure")
    baseline.write(known, [v.finding for v in report.findings], report.levels)
    wholly, text, tap = documents(journal_path, known)
    assert not wholly.new_findings
    assert "<failure" not in text
    assert text.count("<error") == before.count("<error") > 0  # drift is never known
    assert "known finding" in wholly.verdict and "known finding" in tap
    assert all(f["known"] for f in wholly.json["findings"])


def test_a_baseline_keeps_remarks_and_refuses_what_is_none(report: facts.Report, tmp_path: Path) -> None:
    known = tmp_path / "known.json"
    baseline.write(known, [report.findings[0].finding], report.levels)
    body = json.loads(known.read_text())
    body["known"][0]["remark"] = "on the list"
    known.write_text(json.dumps(body))
    baseline.write(known, [v.finding for v in report.findings], report.levels)
    assert baseline.read(known)[report.findings[0].finding.cause].remark == "on the list"
    for text, why in (("", "not JSON"), ("[]", "schema"), ('{"schema": "kvmirror-baseline-1", "known": [3]}', "hash")):
        known.write_text(text)
        with pytest.raises(KvmirrorError, match=why):
            baseline.read(known)
    with pytest.raises(KvmirrorError, match="write-baseline"):
        baseline.read(tmp_path / "none.json")


READ_KTAP = """
import contextlib, io, json, sys
sys.path.insert(0, sys.argv[1])
with contextlib.redirect_stdout(io.StringIO()):
    import kunit_parser
    test = kunit_parser.parse_run_tests(sys.stdin)
print(json.dumps(vars(test.counts) | {"subtests": len(test.subtests), "status": test.status.name}))
"""


def read_ktap(text: str, linux: Path) -> dict[str, int | str]:
    """What the pinned kernel tree's own parser makes of it."""
    argv = [sys.executable, "-B", "-c", READ_KTAP, str(linux / "tools/testing/kunit")]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=True)
    counts: dict[str, int | str] = json.loads(done.stdout)
    return counts


def test_ktap_is_read_by_the_kernels_own_parser(journal_path: Path, nasty: Path, pinned_source: Path) -> None:
    for path in (journal_path, nasty):
        report, _, text = documents(path)
        lines = [line.strip() for line in text.split("\n") if line.startswith("  ")]
        assert read_ktap(text, pinned_source) == {
            "errors": 0,
            "crashed": 0,
            "subtests": len(report.cells) + any(p.claims_no_change for p in report.patches),
            "failed": sum(line.startswith("not ok") for line in lines),
            "skipped": sum(" # SKIP " in line for line in lines),
            "passed": sum(line.startswith("ok") and " # SKIP " not in line for line in lines),
            "status": "FAILURE",
        }


def test_ktap_that_is_cut_short_is_noticed(journal_path: Path, pinned_source: Path) -> None:
    _, _, text = documents(journal_path)
    counts = read_ktap("\n".join(text.split("\n")[:200]), pinned_source)
    assert counts["errors"] or counts["crashed"]


SCHEMA = json.loads((ROOT / "docs" / "schema.json").read_text())


def test_json_is_what_the_schema_says(journal_path: Path, nasty: Path, tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    few = synthetic.make(
        tmp_path / "j", cells=[(0, "unset")], provenance={"patches": {"1": "ab"}}, status="interrupted"
    )
    for path in (journal_path, nasty, few):
        report, _, _ = documents(path)
        body = json.loads(json.dumps(report.json))
        jsonschema.validate(body, SCHEMA)
        assert set(SCHEMA["required"]) <= set(body)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: b.pop("levels"),
        lambda b: b["levels"][0].update(colour="red"),
        lambda b: b["levels"][0].update(param="2"),
        lambda b: b["findings"][0].update(cause="not a hash"),
        lambda b: b["findings"][0].update(cells=[]),
        lambda b: b.update(status="fine"),
        lambda b: b["totals"].update(drift=-1),
    ],
)
def test_the_schema_refuses_what_it_should(report: facts.Report, spoil) -> None:  # type: ignore[no-untyped-def]
    body = copy.deepcopy(report.json)
    spoil(body)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, SCHEMA)


def test_every_key_is_in_the_documentation(report: facts.Report) -> None:
    text = (ROOT / "docs" / "schema.md").read_text()
    for key in (*report.json, *report.json["levels"][0], *report.json["findings"][0]):
        assert f"`{key}`" in text or key in ("severity", "symptom", "rule", "section", "vectors"), key


def test_markdown_is_complete_and_escaped(report: facts.Report, nasty: Path) -> None:
    text = markdown.render(report)
    for view in report.findings[: markdown.MOST]:
        assert view.command in text and view.finding.cause in text
    assert text.count("\n| ") >= len(report.patches)
    hostile_report, _, _ = documents(nasty)
    text = markdown.render(hostile_report)
    assert not re.search(r"<(script|img)", text)
    assert not re.search(r"(?<!\\)\]\(javascript", text)
    assert "\x1b" not in text and "\u202e" not in text
    series = text.split("### Series")[1].split("###")[0]
    rows = [line for line in series.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(hostile_report.patches)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {8}


def test_markdown_says_what_changes_without_a_patch(report: facts.Report) -> None:
    assert "when a patch is left out" not in markdown.render(report)
    changed = replace(report, patches=[replace(p, left_out=["vector v: a | b"]) for p in report.patches[:1]])
    assert "- patch 1: vector v: a \\| b" in markdown.render(changed)


def test_markdown_says_how_a_finding_was_confirmed_and_that_it_moved(report: facts.Report) -> None:
    told = copy.deepcopy(report)
    view = told.findings[0]
    view.finding = replace(view.finding, confirmed="confirmed 3/3 alone")
    view.remark, view.moved = "known", "first at level 7, was 9"
    text = markdown.render(told)
    assert "; confirmed 3/3 alone" in text and "baseline: first at level 7, was 9" in text
    assert text_of.markdown(view.finding.title) in text


@pytest.mark.parametrize(("plant", "hinted"), [(synthetic.honest, False), (synthetic.planted, True)])
def test_a_run_names_explain_where_there_is_a_finding(
    plant: synthetic.Plant, hinted: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Journal(tmp_path / "j") as journal:
        run = synthetic.record(journal, synthetic.sample(), [(14, "1")], plant)
        args = argparse.Namespace(json=False, new=False)
        assert (validate._close(Run.open(journal, run), args, 1.0) == 0) is not hinted
    assert ("kvmirror explain F1" in capsys.readouterr().out) is hinted


def test_the_command_writes_whole_files(journal_path: Path, tmp_path: Path) -> None:
    names = ("html", "junit", "ktap", "json", "markdown")
    options = [part for name in names for part in (f"--{name}", str(tmp_path / name))]
    argv = [sys.executable, "-m", "harness.cli", "report", "--journal", str(journal_path), *options]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    assert (tmp_path / "html").read_text().startswith("<!doctype html>")
    jsonschema.validate(json.loads((tmp_path / "json").read_text()), SCHEMA)
    out = subprocess.run([*argv[:6], "--json", "-"], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert json.loads(out) == json.loads((tmp_path / "json").read_text())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "nothing to write"),
        (["--json", "-", "--junit", "-"], "only one format"),
        (["--json", "/nowhere/at/all.json", "--baseline", "/none.json"], "write-baseline"),
        (["--html", "/proc/none/x.html"], "cannot write"),
    ],
)
def test_what_cannot_be_done_is_said(journal_path: Path, options: list[str], why: str) -> None:
    argv = [sys.executable, "-m", "harness.cli", "report", "--journal", str(journal_path), *options]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert why in done.stderr and "Traceback" not in done.stderr
