"""Every command of the documents does what it says, on a small selection of levels and vectors.

A command is a line of an indented or fenced block that begins with ``kvmirror``, ``make`` or ``python``. One that takes
too long to be run stands under ``<!-- long: why -->``: then only its words are checked. Commands of the pipelines in
ci/ have tests of their own.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.build import kernel
from harness.build.cache import Cache
from harness.cli import main
from harness.process import programs
from harness.series import folder
from kvmodel.question.vector import Access, AccessVector, Mbec, Perm
from tests.emulated_lab import coordinated

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "BENCHMARKS.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "images").rglob("*.md")),
]
IDS = [
    AccessVector(Mbec.OFF, leaf=Perm(True, True, True, False), access=Access.FETCH, cpl=3).id,
    AccessVector(Mbec.ON, access=Access.FETCH, cpl=3).id,
]
LONG = re.compile(r"<!-- long: .+ -->")


@dataclass(frozen=True)
class Command:
    """One line of a document."""

    document: str
    line: int
    text: str
    long: bool

    @property
    def words(self) -> list[str]:
        """As a shell takes it apart; what follows two blanks explains it."""
        return shlex.split(re.split(r"\s{2,}|\s#", self.text.strip())[0])

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def commands() -> list[Command]:
    """All of them, in the order of the documents."""
    found = []
    for path in DOCUMENTS:
        long = fenced = False
        for number, line in enumerate(path.read_text().splitlines(), 1):
            fenced ^= line.startswith("```")
            block = fenced or line.startswith("    ")
            if line.strip() and not block:
                long = bool(LONG.fullmatch(line.strip()))
            if block and re.match(r" *(kvmirror|make|python|\.venv/bin/\w+) ", line):
                found.append(Command(str(path.relative_to(ROOT)), number, line, long))
    return found


ALL = commands()
OURS = [c for c in ALL if Path(c.words[0]).name == "kvmirror"]
ON_HOSTS = ("validate", "run", "coverage")
LIVE = [c for c in OURS if c.words[1] in ON_HOSTS and not {"--host", "--bare"} & set(c.words) and not c.long]
STILL = [c for c in OURS if c not in LIVE and not c.long]


def small(command: Command, journal: Path, here: Path) -> list[str]:
    """The command's arguments with a selection that a test can afford."""
    words = command.words[1:]
    if ">" in words:
        words = words[: words.index(">")]
    words = [w for w in words if not w.startswith(">")]
    named = {"ID": IDS[0], "FILE": "file", "MBOX": "mails", "DIR": "made", "A..B": "mails"}
    words = [named.get(w, w) for w in words]
    if words[0] in ("validate", "findings", "explain", "bundle", "changes", "compare", "report"):
        words += ["--journal", str(journal)]
    if words[0] == "foresee":  # of its own: the tour's journal stays as the run left it
        words += ["--journal", str(here / "foreseen.sqlite"), "--levels", "17,18", "--param", "1", "--vectors", *IDS]
    if words[0] == "validate":
        words += ["--levels", "17,18", "--param", "1", "--jobs", "1", "--vectors", *IDS]
    if words[0] == "coverage":
        words += ["--level", "18", "--param", "1", "--vectors", *IDS]
    if words[0] == "compare":  # two levels of the tour's run
        options = {"--html": 2, "--json": 1, "--mail": 1, "--bare": 1}
        kept = [words[n : n + options[w]] for n, w in enumerate(words) if w in options]
        words = ["compare", "--journal", str(journal), *(w for one in kept for w in one), "@17", "@18"]
    if words[0] == "record":
        words += ["--journal", str(journal)]
    if words[0] == "replay":
        assert main.main(["record", "--journal", str(journal), str(here / words[1])]) == 0
    if words[0] == "changes":
        words[words.index("--patch") + 1] = "18"  # of the levels that the tour asked
    if words[0] == "check":
        words += ["--levels", "18", "--cases", "20"]
    if words[:2] == ["series", "apply"]:
        words += ["--linux", str(little_kernel(here)), "--level", "2"]
    if words[:2] == ["series", "build"]:
        words += ["--levels", "18"]
    if words[:2] == ["series", "check"]:
        words += ["--patches", "18"]
    if words[:2] == ["series", "import"]:
        shutil.copytree(folder.FOLDER, here / "mails", ignore=lambda _, names: [n for n in names if "toml" in n])
    return words


def little_kernel(here: Path) -> Path:
    """A source tree of what the patches touch: enough to apply them, and quick to put into git."""
    tree, pristine = here / "linux", kernel.source(Cache())
    for name in ("Makefile", "Kconfig", *folder.read().touched):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pristine / name, tree / name)
    return tree


def run(words: list[str], here: Path, wants: tuple[int, ...] = (0,), stdin: bytes = b"") -> str:
    """Its standard output. In this process: an interpreter a command would take longer than most commands."""
    said, complained = io.StringIO(), io.StringIO()
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with contextlib.chdir(here), contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            code = main.main(words)
    finally:
        sys.stdin = before
    assert code in wants, (words, code, complained.getvalue())
    return said.getvalue()


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal of one real run, which all that read a journal are asked about."""
    here = tmp_path_factory.mktemp("tour")
    first = next(c for c in LIVE if c.words[1] == "validate")
    assert "17" in run(small(first, here / "journal.sqlite", here), here, (1,))
    return here / "journal.sqlite"


def test_there_are_commands_in_each_place() -> None:
    places = {c.document for c in ALL}
    assert {"README.md", "docs/reports.md", "docs/settings.md", "docs/lab.md"} <= places
    assert {c.words[1] for c in OURS} >= {"validate", "run", "predict", "findings", "explain", "changes", "report",
                                          "doctor", "config", "completion"}  # fmt: skip


def inline() -> list[Command]:
    """Commands named in a sentence, those that can be typed as they stand."""
    found = []
    for path in DOCUMENTS:
        for text in re.findall(r"`(kvmirror [^`|]*)`", path.read_text()):
            words = text.split()
            if len(words) > 2 and not {"COMMAND", "--help"} & set(words):
                found.append(Command(str(path.relative_to(ROOT)), 0, " ".join(words), True))
    return found


@pytest.mark.parametrize("command", [*OURS, *inline()], ids=str)
def test_the_command_line_knows_every_word(command: Command) -> None:
    words = [w for w in command.words[1:] if not w.startswith(">")]
    words = words[: words.index(">")] if ">" in words else words
    assert callable(main.parser().parse_args(words).run)


@pytest.mark.parametrize("command", [c for c in ALL if c.words[0] == "make"], ids=str)
def test_make_has_the_target(command: Command) -> None:
    target = next(w for w in command.words[1:] if not w.startswith(("-", "ARGS=")))
    assert re.search(rf"(?m)^{target}:", (ROOT / "Makefile").read_text())


@pytest.mark.parametrize("command", [c for c in STILL if "--host" not in c.words], ids=str)
@pytest.mark.live
def test_a_command_that_starts_no_host(command: Command, tour: Path, tmp_path: Path) -> None:
    mail = folder.read().patches[0].path.read_bytes()
    finds = "--exit-code" in command.words or command.words[1] in ("foresee", "compare", "replay")
    wants = (0, 1) if finds else (0,)
    if "--baseline" in command.words:
        (tmp_path / "known.json").write_text('{"schema": "kvmirror-baseline-1", "known": []}')
    words = small(command, tour, tmp_path)
    said = run(words, tmp_path, wants, mail if "--b4-check" in words else b"")
    made = [w for w in command.words if re.fullmatch(r"[\w-]+\.(html|xml|ktap|json)", w) and "--baseline" not in words]
    for name in made:
        assert (tmp_path / name).stat().st_size > 40
    assert said.strip() or made or command.words[1] == "record" or "--baseline" in words or "--write-baseline" in words


BY_SSH = [c for c in OURS if "--host" in c.words and "labgrid:" not in c.text]
BY_LABGRID = [c for c in OURS if "--host" in c.words and "labgrid:" in c.text]


@pytest.mark.parametrize("command", [c for c in BY_SSH if c.words[1] == "validate"], ids=str)
def test_a_lab_machine_is_not_started_to_be_told_what_would_run(command: Command, tmp_path: Path) -> None:
    said = run([*command.words[1:], "--journal", str(tmp_path / "j"), "--dry-run"], tmp_path)
    assert "ssh -p 22 root@lab1" in said and "qemu-system-x86_64" in said


@pytest.mark.parametrize("command", [c for c in BY_SSH if c.words[1] != "validate"], ids=str)
def test_a_lab_machine_that_is_not_there_is_said(command: Command, tmp_path: Path) -> None:
    words = [w.replace("root@lab1", "root@127.0.0.1:9").replace("ID", IDS[0]) for w in command.words[1:]]
    said = run(words, tmp_path, (4,))
    assert "no connection" in said or command.words[1] in ("run", "trace")


def test_a_place_made_as_the_page_says_is_found_by_its_tags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A coordinator and an exporter from the page's file, the page's labgrid-client commands, then kvmirror's."""
    page = (ROOT / "docs" / "lab.md").read_text()
    (exported,) = (text for text in re.findall(r"(?s)```yaml\n(.*?)```", page) if "NetworkService" in text)
    exported = exported.replace("lab1.example.org", "127.0.0.1\n    port: 9")
    exported = exported.replace("console.example.org", "127.0.0.1").replace("pdu.example.org", "127.0.0.1:9")
    typed = [line.strip() for line in page.splitlines() if line.startswith("    labgrid-client ")]
    with coordinated(tmp_path, {}, exported, last="lab1") as address:
        monkeypatch.setenv("LG_COORDINATOR", address)
        for line in typed:
            program, *words = shlex.split(line)
            programs.run([Path(sys.executable).with_name(program), *words])
        for command in BY_LABGRID:
            words = [w.replace("ID", IDS[0]) for w in command.words[1:]]
            if words[1] == "validate":
                words += ["--dry-run"]
            code = main.main(words)
            said = capsys.readouterr()
            assert code == (0 if "--dry-run" in words else 4), said.err
            if words[0] == "trace":
                assert "no SSH connection to root@127.0.0.1:9" in said.err
            elif code:
                assert "lab1: its console cannot be read" in said.err or command.words[1] == "doctor"
                assert "place lab1 could not be switched" in said.err or "no connection" in said.out
            else:
                assert f"labgrid-client -x {address} -p lab1 acquire" in said.out


@pytest.mark.parametrize("command", [c for c in LIVE if c.words[1] == "run"], ids=str)
@pytest.mark.live
def test_one_vector_on_a_host(command: Command, tmp_path: Path) -> None:
    words = small(command, tmp_path / "j", tmp_path)
    if "--times" in words:
        words[words.index("--times") + 1] = "1"
    said = run(words, tmp_path, (0, 1))
    assert "verdict" in said and IDS[0] in said


@pytest.mark.parametrize("flags", sorted({tuple(small(c, ROOT, ROOT)) for c in LIVE if c.words[1] == "coverage"}))
@pytest.mark.live
def test_lines_that_no_test_touches(flags: tuple[str, ...], tmp_path: Path) -> None:
    said = run(list(flags), tmp_path, (1,))  # no two vectors reach them all
    assert "arch/x86/kvm/mmu/spte.c" in said and "shadow_ux_mask" in said
    if "--json" in flags:
        reached = {(line["text"], line["reached"]) for patch in json.loads(said)["patches"] for line in patch["lines"]}
        assert ("spte |= shadow_ux_mask;", "vectors") in reached  # what IDS make KVM install
        assert ("child_spte |= shadow_ux_mask;", "never") in reached  # huge pages are not among them
