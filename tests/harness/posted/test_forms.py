"""The forms in which patches reach a maintainer: what is taken, and as what, or refused, and why.

Each form is a small mail of our own. The expectation is what a kernel developer expects of it; what is taken must
also apply to the base and come out of ``series apply`` as a commit of its author.
"""

from __future__ import annotations

import base64
import gzip
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.posted import bring
from harness.series import folder as series_io
from tests.harness.posted import mail_factory as make
from tests.harness.posted.mail_factory import A, B, body, box, diff, mail, multi, part, series

Made = bytes | Sequence[bytes] | dict[str, bytes]


@dataclass(frozen=True)
class Form:
    """A form and what is expected of it: patches with these subjects, or a refusal that matches ``refused``."""

    name: str
    made: Callable[[], Made]
    subjects: tuple[str, ...] = ()
    refused: str = ""
    authors: tuple[str, ...] = ()
    title: str = ""
    notes: str = ""
    says: str = ""
    never: str = ""
    version: int | None = None
    words: str = ""


THREE = tuple(f"KVM: change {n}" for n in (1, 2, 3))
FORMS: list[Form] = []


def form(
    name: str, subjects: Sequence[str] = (), **expected: object
) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """Register a form: what the function gives, an mbox of mails where it is a list."""

    def register(made: Callable[[], Made]) -> Callable[[], Made]:
        FORMS.append(Form(name, made, tuple(subjects), **expected))  # type: ignore[arg-type]
        return made

    return register


ONE = ("KVM: fix a thing",)
TAGGED = "[PATCH] KVM: fix a thing"


def signed(text: str = "", how: str = "base64") -> tuple[str, bytes]:
    return multi(
        part(text or body(), how=how),
        part(b"0\x82\x01", "application/pkcs7-signature", how="base64", charset="", name="smime.p7s", attached=True),
        kind="signed",
        more='; protocol="application/pkcs7-signature"',
    )


def attached(
    number: int,
    *,
    how: str = "7bit",
    kind: str = "text/x-patch",
    subject: str = "",
    tag: str = "PATCH",
    author: str = B,
    separator: bool = True,
) -> bytes:
    head = f"From {'ab' * 20} Mon Sep 17 00:00:00 2001\n" if separator else ""
    head += f"From: {author}\nDate: Wed, 12 Mar 2025 10:00:00 +0000\n"
    head += f"Subject: [{tag}] {subject or f'KVM: inner {number}'}\n\n"
    return part(head + body(number), kind, how=how, name=f"000{number}-x.patch", attached=True)


def review(subject: str | bytes, *, change: str = "", to: str = "v1-2@example.org", how: str = "8bit") -> bytes:
    text = "> quoted\nBetter so:\n\n" + (change or diff(2, "other")) if change != "none" else "> quoted\nLooks good.\n"
    return mail(subject, text, sender=B, mid="review@example.net", to=["v1-0@example.org", to], how=how)


# -- signatures, attachments, parts -----------------------------------------------------------------------------------

form("01b", ONE, authors=(A,))(lambda: mail(TAGGED, signed()))
form("01c", THREE, title="KVM: a fine series")(
    lambda: [
        *series()[:3],
        mail("[PATCH 3/3] KVM: change 3", signed(body(3)), mid="v1-3@example.org", to="v1-0@example.org"),
    ]
)
form("01-qp-signed", ONE)(lambda: mail(TAGGED, signed(how="quoted-printable")))
form("01-inline-pgp", ONE)(
    lambda: mail(
        TAGGED,
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n"
        + re.sub(r"(?m)^-", "- -", body())
        + "-----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n",
    )
)
form("01-nested", ONE)(
    lambda: mail(
        TAGGED,
        multi(
            b"Content-Type: "
            + (m := multi(part(body(), how="base64"), part("<p>x", "text/html"), kind="alternative", mark="in"))[
                0
            ].encode()
            + b"\n\n"
            + m[1],
            part("a list\n", name=""),
        ),
    )
)
form("01-html-only", refused="HTML text only")(lambda: mail(TAGGED, "<p>x</p>", kind="text/html"))
form("01-smime-envelope", refused="S/MIME envelope")(
    lambda: mail(TAGGED, b"x", kind="application/pkcs7-mime", how="base64")
)
form("05d", ("KVM: inner 1",), authors=(B,))(
    lambda: mail("Two fixes", multi(part("See it attached.\n"), attached(1, how="base64")))
)
form("05e", ("KVM: inner 1",), authors=(B,))(
    lambda: mail("A fix", multi(part("See it.\n"), attached(1, kind="text/x-diff")))
)
form("05e2", ("KVM: inner 1",), authors=(B,))(
    lambda: [mail("A fix", multi(part("See it.\n"), attached(1, kind="text/x-diff")))]
)
form("05g", ("KVM: inner 1", "KVM: inner 2"), authors=(B, B))(
    lambda: mail("Two fixes", multi(part("See them.\n"), attached(1), attached(2)))
)
form("05g-numbered", ("KVM: inner 1", "KVM: inner 2"), authors=(B, B))(
    lambda: mail("Two fixes", multi(part("See them.\n"), attached(2, tag="PATCH 2/2"), attached(1, tag="PATCH 1/2")))
)
form("05-two-bare-diffs", refused="2 diffs")(
    lambda: mail(TAGGED, multi(part("See.\n"), part(diff(1), "text/x-patch"), part(diff(2), "text/x-patch")))
)
form("05-one-bare-diff", ONE, says="See.")(
    lambda: mail(
        TAGGED, multi(part("See.\n"), part(diff(1), "text/x-patch", how="base64", name="x.diff", attached=True))
    )
)
form("05-in-a-reply", THREE, notes="0001-x.patch.*reply")(
    lambda: [
        *series(),
        mail(
            "Re: [PATCH 2/3] KVM: change 2",
            multi(part("So?\n"), attached(1)),
            sender=B,
            mid="r@x",
            to="v1-2@example.org",
        ),
    ]
)
form("05h", THREE)(
    lambda: [
        *series()[:3],
        mail(
            "[PATCH 3/3] KVM: change 3",
            multi(part("Why.\n---\n", how="base64"), part(diff(3), "text/x-patch", how="base64")),
            mid="v1-3@example.org",
            to="v1-0@example.org",
        ),
    ]
)
form("19u", ("KVM: inner 1", "KVM: inner 2"), authors=(B, B))(
    lambda: mail(
        "Fwd patches",
        multi(
            part("Two.\n"),
            *(b"Content-Type: message/rfc822\n\n" + mail(f"[PATCH] KVM: inner {n}", body(n), sender=B) for n in (1, 2)),
        ),
    )
)
form("19u-numbered", ("KVM: inner 1", "KVM: inner 2"), authors=(B, B))(
    lambda: mail(
        "Two patches",
        multi(
            part("Two.\n"),
            *(
                b"Content-Type: message/rfc822\n\n" + mail(f"[PATCH {n}/2] KVM: inner {n}", body(n), sender=B)
                for n in (1, 2)
            ),
        ),
    )
)
form("list-footer-as-a-part", ONE)(
    lambda: mail(TAGGED, multi(part(body(), how="base64"), part("_______\nlist@example.org\n--- a\n+++ b\n")))
)

# -- numbers, versions, several series --------------------------------------------------------------------------------

form("03b", refused="patch 3 of 3 is missing")(
    lambda: [*series()[:3], mail("[PATCH 2.3/3] KVM: more", body(3), mid="f@x", to="v1-0@example.org")]
)
form("03c", refused="patch 4 of 4 of version 2 is missing")(
    lambda: [
        *series(4, tag="PATCH v2")[:4],
        mail("[PATCH v2 1.4/4] KVM: more", body(4), mid="f@x", to="v1-0@example.org"),
    ]
)
form("03-whole-and-a-fraction", THREE, notes=r"2\.5/3 is no whole number")(
    lambda: [*series(), mail("[PATCH 2.5/3] KVM: more", body(3, "x"), mid="f@x", to="v1-0@example.org")]
)
form("03-one-too-many", THREE, notes="number 4 is not among 1 to 3")(
    lambda: [*series(), mail("[PATCH 4/3] KVM: more", body(4), mid="f@x", to="v1-0@example.org")]
)
form("10p", refused="two series|missing")(
    lambda: [
        mail("[PATCH 1/2] KVM: change 1", body(1), mid="k1@a", to="k0@a"),
        mail("[kvm-unit-tests PATCH 2/2] x86: test", body(2), mid="u2@b", to="u0@b", sender=B),
    ]
)


def second(total: int = 3, to: str = "v1-0@example.org", tag: str = "PATCH v2") -> list[bytes]:
    return series(
        total,
        tag=tag,
        stem="v2",
        to=to,
        cover="KVM: a fine series, again",
        word="newer",
        date="Fri, 14 Mar 2025 20:10:0{} +0000",
    )


def third() -> list[bytes]:
    return series(
        tag="PATCH v3",
        stem="v3",
        to="v2-0@example.org",
        cover="KVM: a fine series, at last",
        word="newest",
        date="Sat, 15 Mar 2025 20:10:0{} +0000",
    )


V2 = {"title": "KVM: a fine series, again", "notes": r"version 2 was taken.*version 1.*--version 1", "says": "newer 1"}
form("11d", THREE, **V2)(lambda: [*series(), *second()])
form("11d-in-threads-of-their-own", THREE, **V2)(lambda: [*second(to=""), *series()])
form("11d-the-older", THREE, version=1, title="KVM: a fine series", says="more 1")(lambda: [*series(), *second()])
form("11d-not-there", refused="--version 4: .* v1, v2", version=4)(lambda: [*series(), *second()])
form("11g", THREE, title="KVM: a fine series, at last", says="newest 1", notes="version 2")(
    lambda: [*series(), review("Re: [PATCH 2/3] KVM: change 2"), *second(), *third()]
)
form("11i", THREE, **V2)(lambda: [*series(2), *second()])
form(
    "11j",
    THREE,
    title="KVM: a fine series",
    notes="version 2 was sent of patch 2 alone",
    says="newer 2",
    words="more 1",
)(
    lambda: [
        *series(),
        mail("[PATCH v2 2/3] KVM: change 2", body(2, "newer"), mid="v2-2@example.org", to="v1-2@example.org"),
    ]
)
form("11j-without-a-number", THREE, notes="version 2 was sent of patch 2 alone", says="newer 2")(
    lambda: [
        *series(),
        mail("[PATCH v2] KVM: change 2", body(2, "newer"), mid="v2-2@example.org", to="v1-2@example.org"),
    ]
)
form("11j-the-older", THREE, version=1, says="more 2")(
    lambda: [
        *series(),
        mail("[PATCH v2 2/3] KVM: change 2", body(2, "newer"), mid="v2-2@example.org", to="v1-2@example.org"),
    ]
)
form("11l", refused="patch 3 of 3 of version 2 is missing.*--version 1")(lambda: [*series(), *second()[:3]])
form("11m", THREE, **V2)(lambda: [*series(), *second(tag="PATCHv2", to="")])
form("11-version-on-the-cover-alone", THREE, title="KVM: a fine series, again", says="newer 1")(
    lambda: [re.sub(rb"\[PATCH v2 ([1-3])", rb"[PATCH \1", one) for one in second(to="")]
)
LATER = "Fri, 14 Mar 2025 20:10:0{} +0000"


def rfc(tag: str = "RFC PATCH", to: str = "", date: str = LATER, word: str = "drafty") -> list[bytes]:
    return series(tag=tag, stem="rfc", word=word, to=to, date=date, cover="KVM: a fine draft")


form("11-rfc-and-after-it-the-series", THREE, says="more 1", title="KVM: a fine series",
     notes="no RFC of 2025-03-13 was taken, the RFC of 2025-03-12 left out: 'KVM: a fine draft'")(
    lambda: [*rfc(date="Wed, 12 Mar 2025 20:10:0{} +0000"), *series()]
)  # fmt: skip
form("11-rfc-in-one-thread", THREE, says="more 1", notes="RFC")(
    lambda: [*rfc(date="Wed, 12 Mar 2025 20:10:0{} +0000"), *series(to="rfc-0@example.org")]
)
form("11-rfc-after-the-series", THREE, says="drafty 1", notes="the RFC of 2025-03-14 was taken, the series that is no")(
    lambda: [*series(), *rfc()]
)
form("11-rfc-of-a-higher-version-before", THREE, says="more 1", notes=r"^version 1 was taken.*RFC, version 2")(
    lambda: [*rfc("RFC PATCH v2", date="Wed, 12 Mar 2025 20:10:0{} +0000"), *series()]
)
form("11-rfc-of-a-higher-version-after", THREE, says="drafty 1", notes=r"^RFC, version 2 was taken.*version 1")(
    lambda: [*series(), *rfc("RFC PATCH v2")]
)
form("11-rfc-without-dates", THREE, says="more 1", notes="RFC")(lambda: [*rfc(date=""), *series(date="")])
form("11-rfc-by-its-version", THREE, says="drafty 1", version=2)(
    lambda: [*rfc("RFC PATCH v2", date="Wed, 12 Mar 2025 20:10:0{} +0000"), *series()]
)
form("11-rfc-twice", refused="patch 1 is there twice")(lambda: [*rfc(), *[re.sub(rb"<rfc-", b"<second-", one) for one in
     rfc(word="other")]])  # fmt: skip
form("11-resend", THREE, says="newer 1", notes="sent again")(lambda: [*series(), *second(tag="PATCH RESEND", to="")])
form("18m", refused="two series.*a fine series.*another")(
    lambda: [*series(), *series(2, stem="w1", sender=B, cover="KVM: another", title="KVM: other")]
)
form("18o", refused="two series|missing")(
    lambda: [
        mail("[PATCH 1/2] KVM: change 1", body(1), mid="a1@x", to="a0@x"),
        mail("[PATCH 2/2] mm: other 2", body(2), mid="b2@y", to="b0@y", sender=B),
    ]
)
form("21y", refused="two series|missing")(
    lambda: {
        "a.eml": series(2)[0],
        "b.eml": series(2)[1],
        "c.eml": mail("[PATCH 2/2] mm: alone", body(2), sender=B, mid="z@z", to="zz@z"),
    }
)
form("21d", THREE)(lambda: series(tag="PATCH 6.1/6.12"))
form("21e", ONE)(lambda: mail("[PATCH 5.10/5.15] KVM: fix a thing", body()))
form("21h", THREE, says="newer 1", notes="version 2 was taken")(
    lambda: [*series(tag="PATCH v6.12.y"), *second(tag="PATCH v6.12.y v2", to="")]
)
form("22i", refused="two series|no number|twice")(
    lambda: box(
        mail("[PATCH 1/1] KVM: one", body(1), mid="o@x"),
        mail("[PATCH 1/1] mm: two", body(2), mid="t@y", sender=B),
        blank=False,
    )
)
form("20n", refused="two series|no number|twice|2 patches")(
    lambda: box(
        mail("[PATCH] KVM: one", body(1), mid="o@x"), mail("[PATCH] mm: two", body(2), mid="t@y", sender=B), blank=False
    )
)
form("two-eml-in-one-file", refused="another mail begins at line")(
    lambda: mail("[PATCH] KVM: one", body(1)) + make.file(2, 2, "KVM: two")
)
form("18p", THREE, notes="1 copy")(lambda: [*series(), series()[2]])
form("20l", THREE, notes="4 copies")(
    lambda: {f"{n}.eml": one for n, one in enumerate(series())} | {"series.mbox": box(*series())}
)
form("one-message-id-two-diffs", refused="one Message-ID and two different diffs")(
    lambda: [*series(), series(word="changed")[2]]
)
form("a-patch-of-another-within-the-thread", THREE, notes="beside it")(
    lambda: [*series(), mail("[PATCH] KVM: or so", body(2, "other"), sender=B, mid="b@x", to="v1-2@example.org")]
)
form("files-of-format-patch", ("KVM: one", "KVM: two"), authors=(A, B))(
    lambda: {"0001.patch": make.file(1, 2, "KVM: one"), "0002.patch": make.file(2, 2, "KVM: two", author=B)}
)
form("missing-in-the-middle", refused="patch 2 of 3 is missing")(lambda: [series()[0], series()[1], series()[3]])
form("a-numbered-mail-without-its-diff", refused="patch 2 of 3 is missing.*has no diff")(
    lambda: [
        *series()[:2],
        mail("[PATCH 2/3] KVM: change 2", "Later.\n", mid="v1-2@example.org", to="v1-0@example.org"),
        series()[3],
    ]
)

# -- replies and notifications ----------------------------------------------------------------------------------------

ANSWERS = {
    "07f1": "=?utf-8?q?Re=3A_=5BPATCH_2/3=5D_KVM=3A_change_2?=",
    "07f3": "[External] Re: [PATCH 2/3] KVM: change 2",
    "07f5": "SV: [PATCH 2/3] KVM: change 2",
    "07f6": "Antw: [PATCH 2/3] KVM: change 2",
    "07-odpowiedz": "Odp.: [PATCH 2/3] KVM: change 2",
    "07-chinese": "=?utf-8?b?" + base64.b64encode("回复\uff1a[PATCH 2/3] KVM: change 2".encode()).decode() + "?=",
    "07-counted": "RE[2]: [PATCH 2/3] KVM: change 2",
}
for _name, _subject in ANSWERS.items():
    form(_name, THREE, notes="reply")(lambda s=_subject: [*series(), review(s)])
    form(_name + "-without-a-diff", THREE, notes="reply")(
        lambda s=_subject: [*series(), review(s, change="none", how="quoted-printable")]
    )
form("07h", refused="patch 2 of 3 is missing")(
    lambda: [*series()[:2], series()[3], review("=?utf-8?q?Re=3A_[PATCH_2/3]_KVM=3A_change_2?=")]
)
form("07i", THREE, title="KVM: a fine series")(
    lambda: [review(ANSWERS["07-chinese"], change="none", how="base64"), *series()]
)
form("17d", THREE, notes="tip: x86/urgent")(
    lambda: [
        *series(),
        mail("[tip: x86/urgent] KVM: change 2", body(2), sender="tip-bot2 <tip@bot>", mid="t@t", to="v1-2@example.org"),
    ]
)
form("17e", THREE, notes="FAILED")(
    lambda: [
        *series(),
        mail('FAILED: patch "[PATCH] KVM: change 2" failed to apply to 6.12-stable', body(2), sender=B, mid="t@t"),
    ]
)
form("17g", THREE)(
    lambda: [
        *series(),
        mail("A question", "<p>?</p>", kind="text/html", how="base64", sender=B, mid="h@h", to="v1-2@example.org"),
    ]
)
form("17h", THREE, notes="too much for a patch mail")(
    lambda: [*series(), mail("A log", "x" * 79 * 50_000, how="base64", sender=B, mid="h@h", to="v1-2@example.org")]
)

# -- header and body lines --------------------------------------------------------------------------------------------

IN_BODY = "From: In Body <in@example.org>\n"
form("06c", ("KVM: the real one",), authors=("In Body <in@example.org>",), never="Subject:")(
    lambda: mail(
        "[PATCH] x", IN_BODY + "Date: Tue, 11 Mar 2025 09:00:00 +0000\nSubject: KVM: the real one\n\n" + body()
    )
)
form("06-date-before-from-and-folded", ("KVM: the real one goes on",), authors=("In Body <in@example.org>",))(
    lambda: mail(
        "[PATCH] x",
        "Date: Tue, 11 Mar 2025 09:00:00 +0000\nFrom: In Body\n <in@example.org>\n"
        "Subject: KVM: the real one\n goes on\n\n" + body(),
    )
)
form("20x", ("KVM: the real one",), authors=("In Body <in@example.org>",), never="Subject:")(
    lambda: mail("[PATCH 1/1] x", IN_BODY + "Subject: KVM: the real one\n\n" + body())
)
form("22e", ONE, authors=(A,), says="From: section 29.3 of the manual")(
    lambda: mail(TAGGED, body(message="From: section 29.3 of the manual one learns that it is so."))
)
form("22f", ONE, authors=("a@example.org <a@example.org>",))(
    lambda: mail(TAGGED, "From: a@example.org\n\n" + body(), sender=B)
)
form("07b2", ONE, authors=("a@example.org <a@example.org>",))(lambda: mail(TAGGED, body(), sender="a@example.org"))
form("21b4", ONE, authors=("a@example.org <a@example.org>",))(
    lambda: mail(TAGGED, body(), sender="a@example.org <a@example.org>")
)
NAMES = {
    "08c": (b'"Uthor, A" <a@example.org>', "Uthor, A"),
    "08d": (b"=?utf-8?q?M=C3=BCller=2C_A?= <a@example.org>", "Müller, A"),
    "08i": ("Jörg Uthor <a@example.org>".encode(), "Jörg Uthor"),
    "08m": (b"=?utf-8?q?J=F6rg?= <a@example.org>", "Jörg"),
    "21a": (b"=?utf-8?q?Uthor=2C_A?= <a@example.org>", "Uthor, A"),
    "21b": (b"=?utf-8?q?A_Uthor_=5BExample=5D?= <a@example.org>", "A Uthor [Example]"),
    "21b5": (b'"=?utf-8?Q?J=C3=B6rg_Uthor?=" <a@example.org>', "Jörg Uthor"),
    "two-encoded-words": (b"=?utf-8?q?J=C3=B6rg?=\n =?utf-8?q?_Uthor?= <a@example.org>", "Jörg Uthor"),
}
for _name, (_sender, _author) in NAMES.items():
    form(_name, ONE, authors=(f"{_author} <a@example.org>",))(lambda s=_sender: mail(TAGGED, body(), sender=s))
form("08j", ("KVM: prüfe es",))(lambda: mail("[PATCH] KVM: prüfe es".encode(), body()))
form("08l", ("KVM",))(lambda: mail("[PATCH] =?x-foo?q?KVM?=", body()))
form("08p", ONE, authors=("张三 <z@example.org>",))(
    lambda: mail(TAGGED, "From: 张三 <z@example.org>\n\n" + body(), charset="gb2312", how="base64")
)
form("20p", ONE, says="说明")(lambda: mail(TAGGED, body(message="说明: 为什么"), charset="gb2312", how="base64"))
form("20q", ONE, says="почему")(
    lambda: mail(TAGGED, body(message="почему: так"), charset="koi8-r", how="quoted-printable")
)
form("21s", ONE, says="warum")(lambda: mail(TAGGED, body(message="warum"), charset="utf-16", how="base64"))
form("charset-unknown", ONE, says="grün", notes="not known")(
    lambda: mail(TAGGED, body(message="grün").encode(), charset="x-mine")
)
form("charset-not-its-own", refused="charset 'big5'")(
    lambda: mail(TAGGED, b"\xff\xfe\xff " + body().encode(), charset="big5")
)
form("19p", refused="address within an encoded name")(
    lambda: mail(TAGGED, body(), sender="=?utf-8?q?X_=3Cx=40y=3E=0A?= <a@example.org>")
)
form("19q", ONE, notes="date 'yesterday-ish' is none")(lambda: mail(TAGGED, body(), date="yesterday-ish"))
form("19s2", ONE)(lambda: mail(TAGGED, body(), date="Thu, 13 Mar 25 13:36:42 GMT"))
form("two-subjects", refused="two different Subject")(lambda: mail(TAGGED, body(), extra="Subject: [PATCH] another"))
form("16a", ("KVM: below",), authors=(B,), never="prose", notes="scissors")(
    lambda: mail(
        "[PATCH] above",
        f"Some prose.\n\n-- >8 --\nFrom: {B}\nDate: Tue, 11 Mar 2025 09:00:00 +0000\nSubject: KVM: below\n\n" + body(),
    )
)
form("16-without-a-header", ONE, never="prose", notes="scissors")(
    lambda: mail(TAGGED, "Some prose.\n\n---------- 8< ----------\n" + body())
)
form("subject-with-a-tag-of-its-own", ("[media] fix",))(lambda: mail("[PATCH 1/1] [media] fix", body()))

# -- diffs ------------------------------------------------------------------------------------------------------------


def stable(number: int, author: str) -> bytes:
    text = (
        "6.12-stable review patch.  If anyone has any objections, please let me know.\n\n------------------\n\n"
        f"From: {author}\n\n[ Upstream commit {'0123456789' * 4} ]\n\nWhy {number}.\n---\n x | 1 +\n\n"
        + diff(number, git=False)
    )
    return mail(
        f"[PATCH 6.12 {number}/3] KVM: change {number}",
        text,
        sender="G Reg <g@example.com>",
        mid=f"st-{number}@example.com",
        to="st-0@example.com",
    )


form("04b", THREE, authors=(A, B, A), never="objections", notes="no git diff")(
    lambda: [stable(1, A), stable(2, B), stable(3, A)]
)
form("04d", THREE)(
    lambda: [
        *series()[:2],
        mail(
            "[PATCH 2/3] KVM: change 2",
            body(2, change=diff(2, git=False)),
            mid="v1-2@example.org",
            to="v1-0@example.org",
        ),
        series()[3],
    ]
)
form("04-quilt", ONE)(
    lambda: mail(
        TAGGED,
        body(
            change=f"Index: linux/{make.FILES[0]}\n{'=' * 60}\n" + diff(1, git=False, old="linux.orig/", new="linux/")
        ),
    )
)
form("04-noprefix", ONE, notes="no a/ and b/")(lambda: mail(TAGGED, body(change=diff(1, old="", new=""))))
form("04-mnemonic-prefix", ONE, notes="i/ and w/")(lambda: mail(TAGGED, body(change=diff(1, old="i/", new="w/"))))
form("12j", ONE)(
    lambda: mail(
        TAGGED,
        body(
            change='diff --git "a/Documentation/\\303\\274ber.rst" "b/Documentation/\\303\\274ber.rst"\n'
            'new file mode 100644\nindex 0000000..1111111\n--- /dev/null\n+++ "b/Documentation/\\303\\274ber.rst"\n'
            "@@ -0,0 +1 @@\n+x\n"
        ),
    )
)
form("12-newline-in-a-quoted-name", refused="cannot be seen")(
    lambda: mail(
        TAGGED,
        body(
            change='diff --git "a/x\\ny" "b/x\\ny"\nnew file mode 100644\n--- /dev/null\n+++ "b/x\\ny"\n'
            "@@ -0,0 +1 @@\n+x\n"
        ),
    )
)
form("14d", ONE)(lambda: mail(TAGGED, body() + "\n--- \n+++ \nindex of lists\n--- a/b\n+++ c/d\n"))
form("14g", ONE)(lambda: mail(TAGGED, body() + "\n--- Sent from my phone ---\nanother line\n"))
form("14-no-signature-before-a-footer", ONE)(
    lambda: mail(TAGGED, body().replace("-- \n2.39.5\n", "") + "_______________\nlist mailing list\n")
)
form("diff-quoted-in-the-message", ONE, says="rejected")(
    lambda: mail(TAGGED, body(message="This was rejected:\n\n" + diff(2, "never") + "\nand this is not."))
)
form("two-diffs-with-text-between", refused="two diffs with other text")(
    lambda: mail(TAGGED, "Why.\n---\n" + diff(1) + "\nFrom here it is another one.\n\n" + diff(2))
)
form("wrapped-lines", refused="cut short")(
    lambda: mail(TAGGED, body(change=diff(1, "a long line that was").replace(" that was", "\nthat was")))
)
form("format-flowed", ONE)(lambda: mail(TAGGED, re.sub(r"(?m)^ ", "  ", body()), kind="text/plain; format=flowed"))
form("format-flowed-in-name-only", ONE)(lambda: mail(TAGGED, body(), kind="text/plain; format=flowed"))
form("quoted-printable-with-soft-breaks", ONE, says="=" * 90)(
    lambda: mail(TAGGED, body(1, "=" * 90 + " x"), how="quoted-printable")
)
form("crlf", ONE)(lambda: mail(TAGGED, body()).replace(b"\n", b"\r\n"))
form("crlf-within-base64", ONE)(lambda: mail(TAGGED, body().replace("\n", "\r\n"), how="base64"))
form("binary", refused="binary")(
    lambda: mail(TAGGED, body(change="diff --git a/x b/x\nindex 1..2 100644\nGIT binary patch\nliteral 1\nIcmZPo0\n\n"))
)
form("rename", refused="renames are refused")(
    lambda: mail(TAGGED, body(change="diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n"))
)
form("mode", refused="mode")(
    lambda: mail(TAGGED, body(change="diff --git a/x b/x\nold mode 100644\nnew mode 100755\n"))
)

# -- how it is kept ---------------------------------------------------------------------------------------------------

form("18c", ONE)(lambda: {"x.eml": b"\xef\xbb\xbf" + mail(TAGGED, body())})
form("18d", THREE, title="KVM: a fine series")(lambda: {"t.mbox.gz": gzip.compress(box(*series()))})
form("18d-of-two-parts", THREE)(
    lambda: {"t.mbox.gz": gzip.compress(box(*series()[:2])) + gzip.compress(box(*series()[2:]))}
)
form("gzip-cut-short", refused="cut short")(lambda: {"t.mbox.gz": gzip.compress(box(*series()))[:-20]})
form("gzip-bomb", refused="more than 67108864 bytes")(lambda: {"t.mbox.gz": gzip.compress(b"x" * (65 << 20))})
form("zip", refused="zip archive: unpack it")(lambda: b"PK\x03\x04" + b"x" * 100)
form("web-page", refused="web page")(lambda: b"<!DOCTYPE html><html></html>")
form("18i", THREE)(lambda: {("3.EML" if n == 3 else f"{n}.eml"): one for n, one in enumerate(series())})
form("maildir", THREE)(
    lambda: {"tmp/x": b""} | {f"{'new' if n % 2 else 'cur'}/17{n}.M{n}.host:2,S": one for n, one in enumerate(series())}
)
form("numbered-folder", THREE)(lambda: {str(n): one for n, one in enumerate(series())})
form("18s", ("KVM: one",), says="From the log at 10:15:30")(
    lambda: make.file(1, 1, "KVM: one", message="Why.\n\nFrom the log at 10:15:30 one sees it.")
)
form("18t", ONE, says="From the log at 10:15:30")(
    lambda: mail(TAGGED, body(message="Why.\n\nFrom the log at 10:15:30 one sees it."))
)
form("18s-with-a-year", ("KVM: one",), says="From Monday 10:15:30 2025")(
    lambda: make.file(1, 1, "KVM: one", message="Why.\n\nFrom Monday 10:15:30 2025 on it is seen.")
)
form("mboxrd", ONE, says=r"(?m)^From there")(lambda: [mail(TAGGED, body(message="Why.\n\nFrom there on."), mid="x@x")])
form("b4-am", THREE)(lambda: box(*series(cover=""), separator="From git@z Thu Jan  1 00:00:00 1970"))
form("utf-16-box", ONE)(lambda: ("\ufeff" + mail(TAGGED, body()).decode()).encode("utf-16-le"))
form("empty", refused="empty")(lambda: b"\n")

# -- what should do no harm -------------------------------------------------------------------------------------------

form("19a", refused="NUL byte")(lambda: mail(TAGGED, body(message="a\0b")))
form("19c", refused="NUL byte")(lambda: mail("[PATCH] =?utf-8?q?KVM=00x?=", body()))
form("19f", ("KVM:]0;owned fix[2J",), notes="control characters")(
    lambda: mail("[PATCH] =?utf-8?q?KVM=3A=1B]0;owned=07_fix=1B[2J?=", body())
)
form("19f2", THREE, authors=("A[2J <a@example.org>",) * 3, title="fine[2J")(
    lambda: series(sender="=?utf-8?q?A=1B=5B2J?= <a@example.org>", cover="=?utf-8?q?fine=1B[2J?=")
)
form("bidi", ("KVM: evil",))(lambda: mail("[PATCH] KVM: \u202eevil\u2066".encode(), body()))
form("19k", ONE)(lambda: mail(TAGGED, body(message="Why.\n\nFrom " + "a" * 100_000 + "\n\nmore")))
form("19l", refused="Subject: has")(lambda: mail("[PATCH] " + "=?a?q?" * 33_000, body()))
form("19A", refused="|")(lambda: mail("[PATCH] KVM: =?utf-8?q?=ED=A0=80?= x", body()))
form("21n", refused="From: has")(lambda: mail(TAGGED, body(), sender="(" * 20_000 + ")" * 20_000 + " <a@example.org>"))
form("nested-parentheses", ONE)(
    lambda: mail(TAGGED, body(), sender="A " + "(" * 1500 + ")" * 1500 + " <a@example.org>")
)
form("21q", refused="not the base64")(
    lambda: mail(TAGGED, b"%%% no base64 %%%\n", how="7bit").replace(b"7bit", b"base64")
)
form("21q-as-it-is", ONE, notes="taken as it is")(lambda: mail(TAGGED, body(), how="8bit").replace(b"8bit", b"base64"))
form("deep", refused="parts")(
    lambda: mail(
        TAGGED,
        (
            'multipart/mixed; boundary="b0"',
            b"".join(f'--b{n}\nContent-Type: multipart/mixed; boundary="b{n + 1}"\n\n'.encode() for n in range(3000)),
        ),
    )
)
form("a-reply-without-a-prefix-for-a-missing-patch", refused="patch 2 of 3 is missing.*posted by b@example.net")(
    lambda: [*series()[:2], series()[3], review("[PATCH 2/3] KVM: change 2")]
)
form("author-of-a-list", ONE, notes="a list's or a relay's name")(
    lambda: mail(TAGGED, body(), sender="A Uthor via Kvm <kvm@example.org>")
)
form("many-boundaries", refused="parts")(
    lambda: mail(TAGGED, ('multipart/mixed; boundary="b"', b"--b\n\nx\n" * 100_000))
)
LONG = {
    "dashes": "-" * 100_000 + ">8x",
    "blank-path": "--- " + " " * 100_000 + "\n+++ b/x\n@@ -1 +1 @@",
    "one-line": "x" * 1_000_000,
    "separators": "From \n" * 50_000,
    "hunks": "@@ -1 +1 @@\n" * 50_000,
    "borders": "---\n" * 100_000,
    "addresses": "From: " + "<a" * 50_000,
    "header-lines": "Subject: x\n" * 100_000,
    "brackets": "[PATCH] " * 100_000,
}
for _name, _words in LONG.items():
    form(f"long-{_name}", refused="|")(lambda words=_words: mail(TAGGED, words + "\n\n" + body()))
form("long-git-line", refused="names no two files|no mail here has a patch")(
    lambda: mail(TAGGED, body(change="diff --git " + "a/x b/x " * 50_000 + "\n@@ -1 +1 @@\n-x\n+y\n"))
)
form("tags-without-end", refused="characters|Subject")(lambda: mail("[PATCH] " + "[" * 7000, body()))


def _source(made: Made, folder: Path) -> str:
    if isinstance(made, bytes):
        (folder / "in.mbox").write_bytes(made)
        return str(folder / "in.mbox")
    if isinstance(made, dict):
        for name, data in made.items():
            (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "in" / name).write_bytes(data)
        (one, *more) = made
        return str(folder / "in" / one) if not more else str(folder / "in")
    (folder / "in.mbox").write_bytes(box(*made))
    return str(folder / "in.mbox")


@pytest.mark.parametrize("wanted", FORMS, ids=lambda wanted: wanted.name)
def test_form(tmp_path: Path, wanted: Form) -> None:
    source = _source(wanted.made(), tmp_path)
    target = tmp_path / "s"
    if wanted.refused and wanted.refused != "|":
        with pytest.raises(InputError, match=f"(?s){wanted.refused}") as caught:
            bring.bring_in(source, target, version=wanted.version)
        assert not target.exists()
        assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\u202a-\u202e]*", str(caught.value))
        return
    started = time.process_time()
    try:
        made = bring.bring_in(source, target, version=wanted.version)
    except InputError as error:
        assert wanted.refused, error  # "|": taken or refused
        return
    finally:
        assert time.process_time() - started < 10
    read = made.series
    if wanted.subjects:
        assert tuple(p.subject for p in read.patches) == wanted.subjects, made.notes
    if wanted.authors:
        assert tuple(p.author for p in read.patches) == wanted.authors
    if wanted.title:
        assert read.title == wanted.title
    texts = "\n".join(p.mail.message + "\n" + p.mail.diff for p in read.patches)
    assert not wanted.says or re.search(wanted.says, texts)
    assert not wanted.words or re.search(wanted.words, texts)
    assert not wanted.never or not re.search(wanted.never, texts)
    assert re.search(f"(?s){wanted.notes}", "\n".join(made.notes)), made.notes
    for words in (*made.notes, read.title, *(p.subject + p.author for p in read.patches)):
        assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]*", words)
    base = make.tree(tmp_path / "base")
    series_io.apply_tree(read, base, tmp_path / "out", read.last)
    log = subprocess.run(
        ["git", "-C", str(tmp_path / "out"), "log", "--reverse", "--format=%an <%ae>", "-n", str(read.last)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert log.stdout.splitlines() == [p.author for p in read.patches]
