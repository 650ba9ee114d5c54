"""Reading a patch mail, and what is refused."""

from __future__ import annotations

import pytest

from harness.errors import SeriesError
from harness.posted import letter
from harness.series import mail as mails
from kvmodel.series import Claim
from tests.harness.series.mail_samples import DIFF, adding, mail


def test_a_plain_mail() -> None:
    read = mails.parse(mail(3, 18, message_id="x-3@y", body="Why.\n\nNo functional changes intended."), "m")
    assert (read.number, read.total, read.version) == (3, 18, 1)
    assert read.subject == "fix: a thing"
    assert read.author == "A U Thor <author@example.org>"
    assert read.message_id == "x-3@y"
    assert read.message == "Why.\n\nNo functional changes intended."
    assert read.claim is Claim.STATED
    assert read.diff == DIFF
    (file,) = read.files
    assert (file.path, file.added, file.removed, len(file.hunks)) == ("dir/a.c", 1, 0, 1)


def test_no_claim_without_the_words() -> None:
    assert mails.parse(mail(body="This is a functional change."), "m").claim is Claim.NONE


def test_the_author_in_the_body_rules_and_is_decoded() -> None:
    data = mail(tag="RFC PATCH v2", body="From: =?UTF-8?q?Micka=C3=ABl?= <m@example.org>\n\nText.")
    read = letter.one(data, "m")
    assert read.author == "Mickaël <m@example.org>"
    assert read.message == "Text."
    assert read.version == 2


def test_quoted_printable_and_crlf() -> None:
    head = b"From: A <a@b.c>\nSubject: [PATCH 1/2] s\nContent-Transfer-Encoding: quoted-printable\n"
    head += b"Content-Type: text/plain; charset=utf-8\n\n"
    body = ("msg\n---\n" + DIFF).replace("=", "=3D").replace("\n", "\r\n")
    assert letter.one(head + body.encode(), "m").diff == DIFF
    with pytest.raises(SeriesError, match=r"encoded \(quoted-printable\).*series import"):
        mails.parse(head + body.encode(), "m")


def test_what_follows_the_last_hunk_is_left_out() -> None:
    data = mail() + b"_______________\nlist mailing list\n"
    assert mails.parse(data, "m").diff == DIFF


@pytest.mark.parametrize(
    "path", ["../etc/passwd", "a/../../b", "/etc/passwd", "a//b", ".git/hooks/post-commit", "a/.GIT/config", "./a"]
)
def test_paths_that_leave_the_tree_are_refused(path: str) -> None:
    assert mails.unsafe_path(path)
    with pytest.raises(SeriesError, match="mail 7"):
        _ = mails.parse(mail(diff=adding(path, "x")), "mail 7").files


@pytest.mark.parametrize(
    ("diff", "reason"),
    [
        (adding("l", "x").replace("100644", "120000"), "symbolic link"),
        (DIFF.replace(" 100644\n", " 120000\n"), "symbolic links"),
        ("diff --git a/b b/b\nindex 1..2 100644\nGIT binary patch\nliteral 1\nA\n", "binary"),
        ("diff --git a/b b/b\nindex 1..2 100644\nBinary files a/b and b/b differ\n", "binary"),
        ("diff --git a/b b/c\nsimilarity index 100%\nrename from b\nrename to c\n", "renames"),
        ("diff --git a/b b/c\n--- a/b\n+++ b/c\n@@ -1 +1 @@\n-x\n+y\n", "renames|moves"),
        ("diff --git a/b b/b\nold mode 100644\nnew mode 100755\n", "mode"),
        (DIFF.replace("+++ b/dir/a.c", "+++ b/../../etc/passwd"), "refused"),
        (DIFF.replace("--- a/dir/a.c", "--- a/other"), "refused"),
        (DIFF.replace(" four\n", ""), "cut short"),
        (DIFF + DIFF, "two places"),
    ],
)
def test_unsafe_diffs_are_refused_by_name(diff: str, reason: str) -> None:
    with pytest.raises(SeriesError, match=reason) as caught:
        mails.parse_diff(diff, "mail 9")
    assert "mail 9" in str(caught.value)


def test_a_mail_without_a_sender_is_refused() -> None:
    with pytest.raises(SeriesError, match="From"):
        mails.parse(b"Subject: x\n\nbody\n", "m")


def test_new_and_deleted_files() -> None:
    deleted = "diff --git a/o b/o\ndeleted file mode 100644\nindex 1..0\n--- a/o\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"
    new, old = mails.parse_diff(adding("n", "x") + deleted, "m")
    assert new.is_new
    assert old.is_deleted
