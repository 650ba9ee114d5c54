"""Makes the mails that lists carry: small patches of small files, in every dress that mailers put on them."""

from __future__ import annotations

import base64
import quopri
from collections.abc import Sequence
from pathlib import Path

LINES = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
FILES = ("arch/x86/kvm/mmu/spte.c", "arch/x86/kvm/vmx/nested.c", "arch/x86/kvm/vmx/vmx.c", "virt/kvm/kvm_main.c")
A = "A Uthor <a@example.org>"
B = "B Reviewer <b@example.net>"
POSTER = "P Oster <poster@example.com>"


def tree(folder: Path) -> Path:
    """A base on which every patch of here applies."""
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join(LINES) + "\n")
    return folder


def diff(number: int, word: str = "more", *, git: bool = True, old: str = "a/", new: str = "b/") -> str:
    """A diff that adds one line to the file of that number."""
    path = FILES[(number - 1) % len(FILES)]
    head = f"diff --git {old}{path} {new}{path}\nindex 1111111..2222222 100644\n" if git else ""
    return (
        f"{head}--- {old}{path}\n+++ {new}{path}\n@@ -2,4 +2,5 @@ alpha\n beta\n gamma\n"
        f"+{word} {number}\n delta\n epsilon\n"
    )


def body(number: int = 1, word: str = "more", *, message: str = "", change: str | None = None) -> str:
    """The text of a patch mail as git format-patch writes it."""
    change = diff(number, word) if change is None else change
    path = FILES[(number - 1) % len(FILES)]
    stat = f" {path} | 1 +\n 1 file changed, 1 insertion(+)\n"
    return f"{message or f'Why number {number}.'}\n\nSigned-off-by: {A}\n---\n{stat}\n{change}-- \n2.39.5\n"


def coded(text: str | bytes, how: str = "8bit", charset: str = "utf-8") -> bytes:
    """A text in a transfer encoding."""
    data = text.encode(charset) if isinstance(text, str) else text
    if how == "base64":
        return base64.encodebytes(data)
    return quopri.encodestring(data) if how == "quoted-printable" else data


def part(
    text: str | bytes,
    kind: str = "text/plain",
    *,
    how: str = "7bit",
    charset: str = "utf-8",
    name: str = "",
    attached: bool = False,
    more: str = "",
) -> bytes:
    """One part of a multipart mail, with its header."""
    head = f"Content-Type: {kind}" + (f"; charset={charset}" if charset else "") + more
    head += f'; name="{name}"' if name else ""
    head += f"\nContent-Transfer-Encoding: {how}\n"
    if attached:
        head += "Content-Disposition: attachment" + (f'; filename="{name}"' if name else "") + "\n"
    return head.encode() + b"\n" + coded(text, how, charset or "utf-8")


def multi(*parts: bytes, kind: str = "mixed", mark: str = "=-cut", more: str = "") -> tuple[str, bytes]:
    """The Content-Type and the body of a multipart mail."""
    inner = b"".join(b"--" + mark.encode() + b"\n" + one + b"\n" for one in parts)
    return f'multipart/{kind}; boundary="{mark}"{more}', inner + b"--" + mark.encode() + b"--\n"


def mail(
    subject: str | bytes,
    text: str | bytes | tuple[str, bytes] = "",
    *,
    sender: str | bytes = A,
    mid: str = "",
    to: str | Sequence[str] = (),
    date: str = "Thu, 13 Mar 2025 20:10:00 +0000",
    how: str = "8bit",
    charset: str = "utf-8",
    kind: str = "text/plain",
    extra: str = "",
) -> bytes:
    """A raw mail without a From line. ``to`` are the Message-IDs it answers, the direct one last."""
    answers = [to] if isinstance(to, str) else list(to)
    lines = [b"From: " + (sender.encode() if isinstance(sender, str) else sender)]
    lines += [f"Date: {date}".encode()] if date else []
    lines += [b"Subject: " + (subject.encode() if isinstance(subject, str) else subject)]
    lines += [f"Message-ID: <{mid}>".encode()] if mid else []
    if answers:
        lines += [
            f"In-Reply-To: <{answers[-1]}>".encode(),
            b"References: " + " ".join(f"<{a}>" for a in answers).encode(),
        ]
    lines += [extra.encode()] if extra else []
    lines += [b"MIME-Version: 1.0"]
    if isinstance(text, tuple):
        lines += [f"Content-Type: {text[0]}".encode()]
        data = text[1]
    else:
        lines += [f"Content-Type: {kind}; charset={charset}".encode(), f"Content-Transfer-Encoding: {how}".encode()]
        data = coded(text, how, charset)
    return b"\n".join(lines) + b"\n\n" + data


def series(
    total: int = 3,
    *,
    cover: str = "KVM: a fine series",
    tag: str = "PATCH",
    stem: str = "v1",
    sender: str = A,
    to: str = "",
    word: str = "more",
    title: str = "KVM: change",
    date: str = "Thu, 13 Mar 2025 20:10:0{} +0000",
    first: int = 1,
) -> list[bytes]:
    """A cover (without one where ``cover`` is empty) and its patches, in one thread."""
    made = []
    root = f"{stem}-0@example.org"
    if cover:
        made.append(
            mail(f"[{tag} 0/{total}] {cover}", "What it is for.\n", mid=root, to=to, sender=sender, date=date.format(0))
        )
    for number in range(first, total + 1):
        above = [*([to] if to else []), root]
        made.append(
            mail(
                f"[{tag} {number}/{total}] {title} {number}",
                body(number, word),
                mid=f"{stem}-{number}@example.org",
                to=above,
                sender=sender,
                date=date.format(number % 10),
            )
        )
    return made


def box(*mails: bytes, separator: str = "From mboxrd@z Thu Jan  1 00:00:00 1970", blank: bool = True) -> bytes:
    """An mbox as lore serves it."""
    made = b""
    for one in mails:
        lines = [b">" + line if line.lstrip(b">").startswith(b"From ") else line for line in one.split(b"\n")]
        made += separator.encode() + b"\n" + b"\n".join(lines) + (b"\n" if blank else b"")
    return made


def file(number: int, total: int, subject: str, *, author: str = A, message: str = "", word: str = "more") -> bytes:
    """A mail file of git format-patch."""
    head = f"From {'0123456789' * 4} Mon Sep 17 00:00:00 2001\n"
    head += f"From: {author}\nDate: Thu, 13 Mar 2025 20:10:00 +0000\nSubject: [PATCH {number}/{total}] {subject}\n\n"
    return head.encode() + body(number, word, message=message).encode()
