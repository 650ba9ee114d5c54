"""The pipelines to copy: by the published schemas, and their commands by our own command line."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from harness.cli.main import parser
from harness.results.journal import Journal
from tests.harness.report import synthetic
from tests.programs import program

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / "ci"
FILES = ("gitlab-ci.yml", "github.yml", "Jenkinsfile", "kvmirror.service")
OURS = ("make", ".venv/bin/kvmirror", "/opt/kvmirror/.venv/bin/kvmirror", "/usr/bin/make")


def scripts(name: str) -> list[str]:
    """Every shell line of a pipeline."""
    text = (CI / name).read_text()
    if name == "gitlab-ci.yml":
        body = YAML(typ="safe").load(text)
        jobs = [job for job in body.values() if isinstance(job, dict)]
        return [line for job in jobs for key in ("script", "after_script") for line in job.get(key, [])]
    if name == "github.yml":
        steps = [step for job in YAML(typ="safe").load(text)["jobs"].values() for step in job["steps"]]
        return [line for step in steps for line in step.get("run", "").splitlines()]
    if name == "Jenkinsfile":
        return [m.replace("\\'", "'") for m in re.findall(r"\bsh '((?:\\.|[^'\\])*)'", text)]
    return re.findall(r"(?m)^Exec\w+=(.*)$", text)


def commands(name: str) -> list[list[str]]:
    """Every kvmirror and make command of a pipeline, as words."""
    words = [shlex.split(line) for line in scripts(name)]
    return [[Path(w[0]).name, *w[1:]] for w in words if w[0] in OURS]


def arguments(words: list[str]) -> list[str]:
    """What a command hands to kvmirror, or to pytest."""
    if words[0] == "kvmirror":
        return words[1:]
    (extra,) = [w.removeprefix("ARGS=") for w in words if w.startswith("ARGS=")] or [""]
    return [words[1], *shlex.split(extra)]


def check(schema: str, path: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("schema", "name", "spoil"),
    [
        ("vendor.gitlab-ci", "gitlab-ci.yml", ("when: always", "when: sometimes")),
        ("vendor.github-workflows", "github.yml", ("runs-on:", "runs-of:")),
    ],
)
def test_the_published_schema_accepts_it(schema: str, name: str, spoil: tuple[str, str], tmp_path: Path) -> None:
    done = check(schema, CI / name)
    assert done.returncode == 0, done.stdout
    text = (CI / name).read_text()
    assert spoil[0] in text
    spoiled = tmp_path / name
    spoiled.write_text(text.replace(*spoil))
    assert check(schema, spoiled).returncode == 1


@pytest.mark.parametrize("name", FILES)
def test_each_has_cache_artefacts_and_baseline(name: str) -> None:
    text = (CI / name).read_text()
    found = [" ".join(words) for words in commands(name)]
    assert "KVMIRROR_CACHE" in text
    assert any("--journal" in c and "validate" in c for c in found)
    for option in ("--html", "--junit", "--json", "--baseline", "--exit-code"):
        assert any(option in c for c in found), option
    # None escaped the reader above.
    assert len(found) == len(re.findall(r"kvmirror report --|make \w+ ARGS=", text))


@pytest.mark.parametrize("name", FILES)
def test_the_command_line_knows_every_command(name: str) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    for words in commands(name):
        given = arguments(words)
        if words[0] == "make":
            assert words[1] in targets
        if given[0] == "test":
            assert given[1:] == ["--junit-xml=out/tests.xml", "-m", "not live"]
            continue
        args = parser().parse_args(given)
        assert callable(args.run)


@pytest.mark.parametrize("name", FILES)
def test_the_commands_do_what_the_pipeline_needs(name: str, tmp_path: Path) -> None:
    """Validate on a small selection as a dry run; the reports for real, on a journal where the pipeline has its own."""
    (tmp_path / "ci").symlink_to(CI)
    (tmp_path / "out").mkdir()
    cells = [(0, "unset"), (18, "1")]
    honest = synthetic.make(tmp_path / "honest", asked=synthetic.sample(997), cells=cells, plant=synthetic.honest)
    lab = "/var/lib/kvmirror/"
    ran = []
    for words in commands(name):
        given = [a.replace(lab, "out/").replace("/opt/kvmirror/", "") for a in arguments(words)]
        if given[0] == "test":
            continue
        if given[0] == "validate":
            given += ["--levels", "0,18", "--vectors", "thin", "--dry-run"]
        journal = tmp_path / given[given.index("--journal") + 1]
        if not journal.exists():
            shutil.copy(honest, journal)
        argv = [sys.executable, "-m", "harness.cli", *given]
        done = subprocess.run(argv, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
        assert done.returncode == 0, (given, done.stderr)
        ran.append(given)
    assert {g[0] for g in ran} == {"validate", "report"}
    for file in ("report.html", "junit.xml", "run.json"):
        assert (tmp_path / "out" / file).stat().st_size > 1000


def test_new_findings_and_drift_fail_a_pipeline_and_known_ones_do_not(tmp_path: Path) -> None:
    def code(*options: str) -> int:
        argv = [sys.executable, "-m", "harness.cli", "report", "--journal", str(tmp_path / "j"), *options]
        return subprocess.run(argv, cwd=ROOT, capture_output=True, check=False).returncode

    asked = synthetic.sample()
    no_drift = [(0, "unset"), (18, "unset")]
    synthetic.make(tmp_path / "j", asked=asked, cells=no_drift)
    assert code("--exit-code", "--baseline", "ci/known-findings.json") == 1
    assert code("--json", str(tmp_path / "x")) == 0
    assert code("--write-baseline", str(tmp_path / "known")) == 0
    assert code("--exit-code", "--baseline", str(tmp_path / "known")) == 0
    with Journal(tmp_path / "j") as journal:
        synthetic.record(journal, asked, [(15, "0"), (18, "1")])
    assert code("--exit-code", "--baseline", str(tmp_path / "known")) == 3


def test_the_baseline_that_is_shipped_knows_nothing() -> None:
    from harness.report import baseline

    assert baseline.read(CI / "known-findings.json") == {}


def test_jenkins_braces_and_quotes_close() -> None:
    text = re.sub(r"//[^\n]*", "", (CI / "Jenkinsfile").read_text())
    strings = re.sub(r"'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"", "", text)
    assert "'" not in strings and '"' not in strings
    depth = 0
    for sign in strings:
        depth += (sign in "{(") - (sign in "})")
        assert depth >= 0
    assert depth == 0
    assert re.match(r"\s*pipeline \{", text)


@pytest.mark.parametrize("name", ["kvmirror.service", "kvmirror.timer"])
def test_systemd_reads_the_units(name: str, tmp_path: Path) -> None:
    units = configparser.RawConfigParser(strict=False)
    units.optionxform = str  # type: ignore[assignment,method-assign]
    units.read(CI / name)
    assert units["Unit"]["Description"]
    tool = program("systemd-analyze")
    for unit in ("kvmirror.service", "kvmirror.timer"):
        # The programs of a lab machine are not here.
        text = re.sub(r"(?m)^(Exec\w+=)\S+", r"\1/bin/true", (CI / unit).read_text())
        (tmp_path / unit).write_text(re.sub(r"(?m)^(User=).*", r"\1root", text))
    done = subprocess.run([tool, "verify", str(tmp_path / name)], capture_output=True, text=True, check=False)
    mine = [line for line in done.stderr.splitlines() if "kvmirror" in line]
    assert done.returncode == 0 and not mine, done.stderr
    broken = tmp_path / "kvmirror.service"
    broken.write_text(broken.read_text().replace("Type=oneshot", "Type=oneshoot"))
    done = subprocess.run([tool, "verify", str(broken)], capture_output=True, text=True, check=False)
    assert "oneshoot" in done.stderr
