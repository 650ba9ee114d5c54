"""A posted series made into a series folder."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from harness.errors import InputError, SeriesError
from harness.posted import bring
from harness.series import folder
from tests.harness.series.mail_samples import BASE, adding, mail


def bring_in(source: str | Path, target: Path, linux: Path | None = None) -> folder.Series:
    return bring.bring_in(str(source), target, linux=linux).series


def mbox(path: Path, *mails: bytes) -> str:
    path.write_bytes(b"\n".join(mails))
    return str(path)


def test_our_own_mails_come_back_as_they_were(tmp_path: Path) -> None:
    own = folder.read()
    shuffled = [p.path.read_bytes() for p in reversed(own.patches)]
    made = bring_in(mbox(tmp_path / "all.mbox", *shuffled), tmp_path / "series")
    assert made.mirrored
    for a, b in zip(own.patches, made.patches, strict=True):
        assert (a.number, a.subject, a.author, a.message_id, a.claim, a.files) == (
            b.number,
            b.subject,
            b.author,
            b.message_id,
            b.claim,
            b.files,
        )
        assert a.mail.diff == b.mail.diff
        assert a.mail.message == b.mail.message


def test_mails_put_together_by_cat_are_an_mbox(tmp_path: Path) -> None:
    own = folder.read()
    together = tmp_path / "all.mbox"
    together.write_bytes(b"".join(p.path.read_bytes() for p in own.patches))
    made = bring_in(together, tmp_path / "series")
    assert [p.mail.diff for p in made.patches] == [p.mail.diff for p in own.patches]


def test_order_cover_and_replies(tmp_path: Path) -> None:
    cover = mail(0, 2, subject="A fine series", diff="", tag="RFC PATCH")
    reply = mail(1, 2, diff="", body="> quoted\nLooks good").replace(b"Subject: ", b"Subject: Re: ")
    second = mail(2, 2, subject="second", diff=adding("n", "x"), tag="RFC PATCH", message_id="m-3@x")
    first = mail(1, 2, tag="RFC PATCH", body="No functional change.")
    made = bring_in(mbox(tmp_path / "a.mbox", reply, second, cover, first), tmp_path / "s")
    assert made.title == "A fine series"
    assert [p.subject for p in made.patches] == ["fix: a thing", "second"]
    assert [p.claim.value for p in made.patches] == ["stated", "none"]
    assert made.patches[1].message_id == "m-3@x"
    assert not made.mirrored


@pytest.mark.parametrize(
    ("mails", "reason"),
    [
        ([mail(1, 2), mail(1, 2, diff=adding("n", "x"))], "patch 1 is there twice"),
        ([mail(1, 3), mail(3, 3, diff=adding("n", "x"))], "patch 2 of 3 is missing"),
        ([mail(1, 2), mail(2, 3, diff=adding("n", "x"))], "two series"),
        ([mail(1, 2), mail(2, 2, tag="PATCH v2", diff=adding("n", "x"))], "patch 1 of 2 of version 2 is missing"),
        ([mail(1, 2), mail(2, 2).replace(b"[PATCH 2/2] ", b"")], "no number"),
        ([mail(1, 1, diff=adding("../x", "x"))], "leaves the tree"),
        ([mail(1, 1, diff=adding("x", "x").replace("100644", "120000"))], "symbolic link"),
        ([mail(0, 1, diff="")], "no mail here has a patch"),
        ([mail(1, 1, diff="")], "no diff|no mail here has a patch"),
    ],
)
def test_mails_that_are_refused(tmp_path: Path, mails: list[bytes], reason: str) -> None:
    with pytest.raises(SeriesError, match=reason):
        bring_in(mbox(tmp_path / "a.mbox", *mails), tmp_path / "s")
    assert not (tmp_path / "s").exists()
    assert not list(tmp_path.glob(".s-*"))


def test_a_folder_of_mails(tmp_path: Path) -> None:
    source = tmp_path / "mails"
    source.mkdir()
    (source / "z.patch").write_bytes(mail(1, 2))
    (source / "a.eml").write_bytes(mail(2, 2, diff=adding("n", "x")))
    (source / "notes.md").write_text("not a mail")
    assert bring_in(str(source), tmp_path / "s").last == 2
    (source / "link.patch").symlink_to(source / "z.patch")
    with pytest.raises(SeriesError, match="symbolic links"):
        bring_in(str(source), tmp_path / "t")


def test_a_range_of_commits(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    options = ["-c", "user.name=A U Thor", "-c", "user.email=a@example.org"]

    def git(*words: str) -> None:
        subprocess.run(["git", *options, *words], cwd=tree, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    (tree / "dir" / "a.c").write_bytes(BASE)
    (tree / "dir" / "b.c").write_bytes(BASE)
    git("add", "-A")
    git("commit", "-q", "-m", "base")
    for number in (1, 2):
        (tree / "dir" / "a.c").write_bytes(BASE + b"more\n" * number)
        git("commit", "-q", "-a", "-m", f"change {number}\n\nNo functional change intended.")
    made = bring_in("HEAD~2..HEAD", tmp_path / "s", linux=tree)
    assert [p.subject for p in made.patches] == ["change 1", "change 2"]
    assert [p.claim.value for p in made.patches] == ["stated", "stated"]
    with pytest.raises(InputError):
        bring_in("nonsense..HEAD", tmp_path / "t", linux=tree)


def test_a_source_that_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        bring_in("HEAD~2..HEAD", tmp_path / "s")


def test_a_target_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "x").write_text("")
    with pytest.raises(SeriesError, match="there already"):
        bring_in(mbox(tmp_path / "a.mbox", mail()), tmp_path / "s")


def test_a_mail_as_an_archive_keeps_it(tmp_path: Path) -> None:
    head = (
        "From mboxrd@z Thu Jan  1 00:00:00 1970\n"
        "Received: from a.example.org (a.example.org [192.0.2.1])\n\tby b.example.org with ESMTPS id X;\n"
        "\tThu, 13 Mar 2025 20:10:22 +0000\n"
        "From: Poster <poster@example.org>\n"
        "Subject: [RFC PATCH 01/02] a subject that is folded\n over two lines\n"
        'Message-ID: <1@example.org>\nMIME-Version: 1.0\nContent-Type: text/plain; charset="utf-8"\n'
        "Content-Transfer-Encoding: base64\n\n"
    )
    body = (
        "From: Wr\u00efter <writer@example.org>\n\n\u201cQuoted\u201d.\n\n---\n x | 1 +\n\n"
        + adding("x", "y")
        + "-- \n2.43.0\n\n"
    )
    coded = base64.encodebytes(body.encode()).decode()
    second = mail(2, 2, tag="RFC PATCH", diff=adding("n", "From here it is text"))
    made = bring_in(mbox(tmp_path / "a.mbox", (head + coded).encode(), second), tmp_path / "s")
    first = made.patches[0]
    assert first.subject == "a subject that is folded over two lines"
    assert first.author == "Wr\u00efter <writer@example.org>"
    assert first.mail.message == "\u201cQuoted\u201d."
    assert first.message_id == "1@example.org"
    assert first.files == ("x",)
