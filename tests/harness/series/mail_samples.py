"""Small patch mails that the tests of mails, series folders and mailboxes share."""

from __future__ import annotations

DIFF = """\
diff --git a/dir/a.c b/dir/a.c
index 1111111..2222222 100644
--- a/dir/a.c
+++ b/dir/a.c
@@ -1,3 +1,4 @@
 one
+two
 three
 four
"""
BASE = b"one\nthree\nfour\n"


def mail(
    number: int = 1,
    total: int = 1,
    *,
    subject: str = "fix: a thing",
    diff: str = DIFF,
    body: str = "Because.",
    tag: str = "PATCH",
    author: str = "A U Thor <author@example.org>",
    message_id: str = "",
) -> bytes:
    """A mail as git format-patch writes it, with its From line."""
    head = f"From 0000 Mon Sep 17 00:00:00 2001\nFrom: {author}\nDate: Thu, 13 Mar 2025 20:10:00 +0000\n"
    head += f"Subject: [{tag} {number}/{total}] {subject}\n"
    head += f"Message-ID: <{message_id}>\n" if message_id else ""
    stat = " dir/a.c | 1 +\n 1 file changed, 1 insertion(+)\n"
    return f"{head}\n{body}\n---\n{stat}\n{diff}-- \n2.39.5\n\n".encode()


def adding(path: str, text: str) -> str:
    """A diff that makes a new file of one line."""
    return (
        f"diff --git a/{path} b/{path}\nnew file mode 100644\nindex 0000000..1111111\n"
        f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+{text}\n"
    )
