"""Where a series is imported from, where to, and on which kernel."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from harness.errors import InputError, SeriesError
from harness.posted import bring
from harness.series import folder as series_io
from tests.harness.posted import mail_factory as make
from tests.harness.posted.mail_factory import body, box, diff, mail, series
from tests.harness.review.test_check import run

MAKEFILE = "VERSION = {}\nPATCHLEVEL = {}\nSUBLEVEL = {}\nEXTRAVERSION ={}\n"


class Repository:
    """A small kernel in git, in a user's configuration that changes what git shows."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = make.tree(folder)
        config = folder.parent / "gitconfig"
        config.write_text(
            "[user]\nname = U Ser\nemail = u@example.org\n"
            "[diff]\nnoprefix = true\nmnemonicPrefix = true\nrenames = copies\n"
            "context = 1\ncolor = always\n[color]\nui = always\n"
            "[format]\nsubjectPrefix = XYZ\nattach = true\nnumbered = false\n"
            "coverLetter = true\nsignOff = true\n[log]\nshowSignature = true\n[core]\npager = false\n[i18n]\n"
            "logOutputEncoding = latin1\n"
        )
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
        self.git("init", "-q", "-b", "main")
        self.write("Makefile", MAKEFILE.format(6, 12, 8, ""))
        self.write("Kconfig", "")
        self.commit("Linux 6.12.8")
        self.git("tag", "base")

    def git(self, *words: str, **how: str) -> str:
        argv = ["git", "-C", str(self.folder), *words]
        done = subprocess.run(argv, check=True, capture_output=True, text=True, env={**os.environ, **how})
        return done.stdout.strip()

    def write(self, path: str, text: str) -> None:
        (self.folder / path).write_text(text)

    def commit(self, message: str, **how: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message, **how)

    def change(self, number: int, message: str, **how: str) -> None:
        """A commit that adds a line to the file of that number."""
        path = self.folder / make.FILES[number - 1]
        path.write_text(path.read_text().replace("delta\n", f"line {number}\ndelta\n", 1))
        self.commit(message, **how)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    return Repository(tmp_path / "linux", monkeypatch)


def test_a_range_whatever_is_configured(tmp_path: Path, kernel: Repository) -> None:
    kernel.change(
        1, "[media] KVM: Ä change\n\nWhy.\n\nFrom the log at 10:15:30 one sees it.", GIT_AUTHOR_NAME="Uthor, A"
    )
    quoted = "KVM: another\n\nIt was so:\n\n" + diff(3, "never") + "\n---\nand more."
    kernel.change(2, quoted)
    made = bring.bring_in("base..main", tmp_path / "s", linux=kernel.folder)
    first, second = made.series.patches
    assert (first.subject, first.author) == ("[media] KVM: Ä change", "Uthor, A <u@example.org>")
    assert "From the log at 10:15:30" in first.mail.message
    assert second.mail.message == quoted.partition("\n\n")[2]
    assert second.files == (make.FILES[1],)
    assert not made.notes
    head = series_io.apply_tree(made.series, make.tree(tmp_path / "base"), tmp_path / "out", 2)
    shown = subprocess.run(
        ["git", "-C", str(tmp_path / "out"), "show", "-s", "--format=%an%n%B", "--encoding=UTF-8", head],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.strip() == f"U Ser\n{quoted}"


def test_the_base_of_a_range_is_where_it_begins(tmp_path: Path, kernel: Repository) -> None:
    kernel.change(1, "KVM: a change")
    kernel.git("branch", "topic")
    kernel.write("Makefile", MAKEFILE.format(9, 9, 9, "-rc9"))
    kernel.commit("Linux 9.9.9")
    bring.bring_in("base..topic", tmp_path / "s", linux=kernel.folder)
    index = (tmp_path / "s" / "series.toml").read_text()
    assert 'version = "6.12.8"' in index
    assert f'commit = "{kernel.git("rev-parse", "base")}"' in index
    with pytest.raises(InputError, match="no commit 'nowhere'"):
        bring.bring_in("nowhere..topic", tmp_path / "t", linux=kernel.folder)
    with pytest.raises(SeriesError, match="no commits"):
        bring.bring_in("topic..topic", tmp_path / "t", linux=kernel.folder)
    with pytest.raises(InputError, match="no versions"):
        bring.bring_in("base..topic", tmp_path / "t", linux=kernel.folder, version=2)


def test_the_empty_first_commit_of_b4_prep_is_the_cover(tmp_path: Path, kernel: Repository) -> None:
    kernel.commit('KVM: a title\n\nCover.\n\n--- b4-submit-tracking ---\n# do not edit\n{"series": {"revision": 1}}')
    kernel.change(1, "KVM: a change")
    kernel.commit("nothing at all")
    kernel.change(2, "KVM: another")
    made = bring.bring_in("base..main", tmp_path / "s", linux=kernel.folder)
    assert made.series.title == "KVM: a title"
    assert [p.subject for p in made.series.patches] == ["KVM: a change", "KVM: another"]
    assert "'nothing at all') has no changes" in made.notes[1]


def test_a_range_of_a_linked_worktree(tmp_path: Path, kernel: Repository) -> None:
    kernel.git("worktree", "add", "-q", str(tmp_path / "linked"), "-b", "side")
    side = tmp_path / "linked"
    (side / make.FILES[0]).write_text("other\n")
    subprocess.run(["git", "-C", str(side), "commit", "-q", "-am", "KVM: side"], check=True)
    assert (side / ".git").is_file()
    made = bring.bring_in("base..HEAD", tmp_path / "s", linux=side)
    assert [p.subject for p in made.series.patches] == ["KVM: side"]


def test_a_range_that_is_refused(tmp_path: Path, kernel: Repository) -> None:
    kernel.git("mv", make.FILES[0], "arch/x86/kvm/renamed.c")
    (kernel.folder / "link").symlink_to("Makefile")
    kernel.commit("KVM: move")
    with pytest.raises(SeriesError, match="symbolic link"):
        bring.bring_in("base..main", tmp_path / "s", linux=kernel.folder)
    (tmp_path / "plain").mkdir()
    with pytest.raises(InputError, match="no git tree"):
        bring.bring_in("a..b", tmp_path / "s", linux=tmp_path / "plain")
    with pytest.raises(InputError, match="this is a file"):
        bring.bring_in("a..b", tmp_path / "s", linux=kernel.folder / "Makefile")
    assert not (tmp_path / "s").exists()


def _box(tmp_path: Path) -> str:
    (tmp_path / "in.mbox").write_bytes(box(*series()))
    return str(tmp_path / "in.mbox")


def _base(folder: Path) -> str:
    return (folder / "series.toml").read_text().partition("[base]")[2].partition("[[patch]]")[0]


def test_the_base_is_the_kernel_that_is_named(tmp_path: Path, kernel: Repository) -> None:
    bring.bring_in(_box(tmp_path), tmp_path / "git", linux=kernel.folder)
    assert _base(tmp_path / "git").split() == [
        *("version", "=", '"6.12.8"'), *("commit", "=", f'"{kernel.git("rev-parse", "HEAD")}"')]  # fmt: skip
    kernel.write("Makefile", MAKEFILE.format(7, 3, 0, " -rc2"))
    tarball = tmp_path / "linux-7.3-rc2.tar.gz"
    with tarfile.open(tarball, "w:gz") as archive:
        for name in ("Makefile", "Kconfig"):
            archive.add(kernel.folder / name, f"linux-7.3-rc2/{name}")
    bring.bring_in(_box(tmp_path), tmp_path / "tar", linux=tarball)
    import hashlib

    assert 'version = "7.3.0-rc2"' in _base(tmp_path / "tar")
    assert hashlib.sha256(tarball.read_bytes()).hexdigest() in _base(tmp_path / "tar")
    (tmp_path / "tree").mkdir()
    for name in ("Makefile", "Kconfig"):
        (tmp_path / "tree" / name).write_text((kernel.folder / name).read_text())
    bring.bring_in(_box(tmp_path), tmp_path / "folder", linux=tmp_path / "tree")
    assert _base(tmp_path / "folder").split() == ["version", "=", '"7.3.0-rc2"']


@pytest.mark.parametrize("what", ["folder", "file", "missing", "tarball"])
def test_a_linux_that_is_no_kernel_is_refused(tmp_path: Path, what: str) -> None:
    """Row 19I."""
    path = tmp_path / what
    if what == "folder":
        path.mkdir()
    elif what == "file":
        path.write_text("x")
    elif what == "tarball":
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo("x/README"), io.BytesIO())
    with pytest.raises(InputError, match=r"no kernel|no such file|as a tarball"):
        bring.bring_in(_box(tmp_path), tmp_path / "s", linux=path)
    assert not (tmp_path / "s").exists()


def test_a_folder_called_as_the_mirrored_series(tmp_path: Path) -> None:
    """Row 19E."""
    made = bring.bring_in(_box(tmp_path), tmp_path / "mbec")
    assert made.series.last == 3
    assert not made.series.mirrored


def test_another_version_of_the_mirrored_series_has_no_mirror(tmp_path: Path) -> None:
    own = series_io.read()
    texts = [
        p.path.read_bytes().replace(b"\nSubject:", f"\nMessage-ID: <new-{p.number}@x>\nSubject:".encode(), 1)
        for p in own.patches
    ]
    (tmp_path / "all.mbox").write_bytes(b"\n".join(texts))
    made = bring.bring_in(str(tmp_path / "all.mbox"), tmp_path / "s")
    assert not made.series.mirrored
    assert "taken for another version" in made.notes[0]


def test_a_target_below_a_file(tmp_path: Path) -> None:
    """Row 19G."""
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file" / "s", tmp_path / "file" / "deep" / "s"):
        with pytest.raises(InputError, match="is a file"):
            bring.bring_in(_box(tmp_path), target)
    (tmp_path / "empty").mkdir()
    assert bring.bring_in(_box(tmp_path), tmp_path / "empty").series.last == 3


def test_what_the_mails_say_of_the_base_is_told(tmp_path: Path) -> None:
    """Row 13a."""
    text = (
        "What.\n\n---\nbase-commit: 0123456789abcdef0123456789abcdef01234567\nchange-id: 20250101-mbec-0123456789ab\n"
        "prerequisite-message-id: <1@example.org>\nprerequisite-patch-id: fedcba9876543210fedcba9876543210fedcba98\n\n"
        "-- \nlist mailing list\n"
    )
    mails = series()
    mails[0] = mail("[PATCH 0/3] KVM: a fine series", text, mid="v1-0@example.org")
    (tmp_path / "in.mbox").write_bytes(box(*mails))
    made = bring.bring_in(str(tmp_path / "in.mbox"), tmp_path / "s")
    assert "base-commit 0123456789abcdef" in made.notes[0]
    assert "needs other patches first (message-id <1@example.org>, patch-id fedcba9876543210" in made.notes[1]
    assert 'base_commit = "0123456789abcdef0123456789abcdef01234567"' in _base(tmp_path / "s")


@pytest.mark.parametrize("packed", [False, True])
def test_standard_input(tmp_path: Path, packed: bool) -> None:
    data = box(*series())
    argv = [sys.executable, "-m", "harness.cli", "series", "import", "-", str(tmp_path / "s"), "--json"]
    done = subprocess.run(argv, input=gzip.compress(data) if packed else data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["patches"], said["title"]) == (3, "KVM: a fine series")
    assert [note.split(";")[0] for note in said["notes"]] == ["the mails name no base"]


def test_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(box(*series()),))
    writer.start()
    assert bring.bring_in(str(tmp_path / "pipe"), tmp_path / "s").series.last == 3
    writer.join()


def test_files_that_are_no_mails_are_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, one in enumerate(series()):
        (tmp_path / "in" / f"{number}.eml").write_bytes(one)
    (tmp_path / "in" / "notes.md").write_text("no mail")
    made = bring.bring_in(str(tmp_path / "in"), tmp_path / "s")
    assert made.series.last == 3
    assert "notes.md" in made.notes[0]


def test_the_command_prints_nothing_raw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "=?utf-8?q?KVM=1B[2J=E2=80=AE_x?="
    mails = [
        *series(cover=evil, title=evil),
        mail("Re: [PATCH 2/3] " + evil, body(2), mid="r@x", to="v1-2@example.org"),
    ]
    (tmp_path / "in.mbox").write_bytes(box(*mails))
    assert run("import", str(tmp_path / "in.mbox"), str(tmp_path / "s")) == 0
    index = tmp_path / "s" / "series.toml"
    index.write_text(index.read_text().replace('title = "KVM', 'title = "\\u001b[2J\\u202eKVM'))
    assert run("show", "--series", str(tmp_path / "s")) == 0
    said = capsys.readouterr()
    assert not any(c in said.out + said.err for c in "\x1b\u202e\x07")
    assert "reply, though it has a diff" in said.err


def test_a_damaged_mail_never_ends_in_a_traceback(tmp_path: Path) -> None:
    """Mails with bytes changed at random are taken or refused."""
    import random

    seed = random.Random(15)
    whole = box(*series())
    taken = 0
    for turn in range(25):
        data = bytearray(whole)
        for _ in range(seed.choice((1, 4, 40))):
            data[seed.randrange(len(data))] = seed.randrange(256)
        (tmp_path / "in.mbox").write_bytes(bytes(data))
        try:
            bring.bring_in(str(tmp_path / "in.mbox"), tmp_path / str(turn))
            taken += 1
        except InputError:
            continue
    assert 0 < taken < 25
