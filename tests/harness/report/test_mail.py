"""The reply for the list, and what b4 review reads."""

from __future__ import annotations

import dataclasses
import email
import email.policy
import json
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.report import baseline, facts, mail
from harness.results.journal import Journal
from harness.series import folder
from harness.series import mail as mails
from kvmodel import series as model
from tests.harness.report import hostile, synthetic

ROOT = Path(__file__).resolve().parents[3]
SERIES = folder.read()
ME = "Mickaël Tester <tester@example.org>"


def read(text: str) -> tuple[email.message.EmailMessage, list[str]]:
    message = email.message_from_bytes(text.encode(), policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    return message, text.splitlines()


def posted() -> folder.Series:
    """Our series as if its files were the mails as posted."""
    patches = tuple(
        dataclasses.replace(p, mail=dataclasses.replace(p.mail, message_id=p.message_id)) for p in SERIES.patches
    )
    return dataclasses.replace(SERIES, patches=patches)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> facts.Report:
    path = synthetic.make(tmp_path_factory.mktemp("honest") / "j", plant=synthetic.honest, asked=synthetic.sample(211))
    with Journal(path) as journal:
        return facts.load(journal)


def test_a_reply_answers_the_cover_letter_in_72_columns(report: facts.Report) -> None:
    message, lines = read(mail.reply(report, SERIES, ME))
    assert message["In-Reply-To"] == "<20250313203702.575156-1-jon@nutanix.com>" == message["References"]
    assert message["Subject"] == f"Re: [PATCH 00/18] {SERIES.title}"
    assert message["From"] == ME
    assert "jon@nutanix.com" in message["To"]
    assert message.get_content_type() == "text/plain"
    assert max(map(len, lines)) <= 72
    body = message.get_content()
    joined = " ".join(body.split())
    for patch in report.patches:
        assert f"{patch.number}/18 {patch.subject}" in joined
    for view in report.findings:
        assert f"{view.finding.name}: {view.finding.title}" in joined
        assert view.finding.whence in joined
        assert view.command in re.sub(r" +", " ", body.replace("\\\n", ""))
    assert "6.12.8" in body


def test_a_tested_by_is_offered_only_where_the_run_supports_it(report: facts.Report, honest: facts.Report) -> None:
    offered = mail.reply(honest, posted(), ME)
    assert offered.endswith(f"\nTested-by: {ME}\n")
    assert "Tested-by: " not in mail.reply(honest, posted(), "")
    refused = mail.reply(report, posted(), ME)
    assert "Tested-by: " not in refused
    assert "No Tested-by from this run:" in " ".join(refused.split())
    # Our files are not the author's mails: a run of them tests something else.
    assert "are not the mails as posted" in " ".join(mail.reply(honest, SERIES, ME).split())


@pytest.mark.parametrize("spoil", ["status", "levels", "drift", "hashes", "blocked"])
def test_each_hurdle_alone_withholds_it(honest: facts.Report, spoil: str) -> None:
    changed = {
        "status": {"info": dataclasses.replace(honest.info, status="interrupted")},
        "levels": {
            "rows": honest.rows[:-1] if honest.rows[-1].level != 18 else [r for r in honest.rows if r.level != 7]
        },
        "drift": {"totals": dataclasses.replace(honest.totals, drift=1)},
        "blocked": {"totals": dataclasses.replace(honest.totals, blocked=1)},
        "hashes": {"patches": [dataclasses.replace(p, sha256="") for p in honest.patches]},
    }[spoil]
    assert len(mail.hurdles(dataclasses.replace(honest, **changed), posted())) == 1  # type: ignore[arg-type]
    assert mail.hurdles(honest, posted()) == []


def test_a_run_of_other_patches_is_not_reported_as_this_series(honest: facts.Report) -> None:
    other = [dataclasses.replace(p, sha256="0" * 64) if p.number == 5 else p for p in honest.patches]
    with pytest.raises(InputError, match=r"0005-.*--series"):
        mail.reply(dataclasses.replace(honest, patches=other), SERIES, ME)
    with pytest.raises(InputError, match="no address"):
        mail.reply(honest, SERIES, "nobody")


@pytest.mark.parametrize(
    ("ids", "cover"),
    [
        (["2025.1-2-a@b", "2025.1-3-a@b"], "2025.1-1-a@b"),
        (["2025.1-1-a@b", "2025.1-2-a@b"], "2025.1-1-a@b"),
        (["odd@b", "2025.1-3-a@b"], "odd@b"),
        (["2025.1-2-a@b", "2026.1-3-a@b"], "2025.1-2-a@b"),
        ([""], ""),
    ],
)
def test_the_cover_is_found_by_gits_numbering(ids: list[str], cover: str) -> None:
    assert mail.cover_id(ids) == cover


def test_a_hostile_series_adds_no_header_and_no_control_character(tmp_path: Path) -> None:
    with Journal(hostile.make(tmp_path / "j")) as journal:
        nasty = facts.load(journal)
    nasty = dataclasses.replace(nasty, patches=[dataclasses.replace(p, sha256="") for p in nasty.patches])
    title = dataclasses.replace(SERIES, title=hostile.CONTROL + hostile.SCRIPT)
    text = mail.reply(nasty, title, "")
    message, lines = read(text)
    assert message["Bcc"] is None
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", text)
    assert max(map(len, lines)) <= 72
    posted_patch = dataclasses.replace(SERIES.patches[0].mail, subject=nasty.patches[0].subject)
    for check in mail.b4_check(nasty, posted_patch):
        assert not any(re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e\ud800]", value) for value in check.values())


def eml(number: int, subject: str | None = None) -> bytes:
    """A posted patch mail."""
    patch = SERIES.patches[number - 1]
    return (
        f"From: {patch.author}\nSubject: [RFC PATCH {number}/18] {subject or patch.subject}\n"
        f"Message-ID: <{patch.message_id}>\n\nText.\n---\n\n{patch.mail.diff}"
    ).encode()


def test_b4_reads_a_list_with_five_strings(report: facts.Report, journal_path: Path) -> None:
    argv = [sys.executable, "-m", "harness.cli", "report", "--journal", str(journal_path), "--b4-check"]
    done = subprocess.run(argv, input=eml(13), capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    checks = json.loads(done.stdout)
    assert isinstance(checks, list)
    for check in checks:
        assert set(check) == {"tool", "status", "summary", "url", "details"}
        assert all(isinstance(v, str) for v in check.values())
        assert check["status"] in ("pass", "warn", "fail")
    (row,) = [p for p in report.patches if p.number == 13]
    assert f"{row.changes} answers changed" in checks[0]["summary"]
    assert len(checks) == 1 + len({*row.first_seen, *row.caused})


def test_b4_status_follows_the_run(report: facts.Report, honest: facts.Report) -> None:
    def status(found: facts.Report, number: int) -> list[str]:
        return [c["status"] for c in mail.b4_check(found, mails.parse(eml(number), "test"))]

    assert status(honest, 4) == ["pass"]
    assert status(report, 4) == ["pass"]
    assert status(report, 13)[0] == "warn"
    caused = [
        dataclasses.replace(p, caused=[report.findings[0].finding.name]) if p.number == 13 else p
        for p in report.patches
    ]
    assert "fail" in status(dataclasses.replace(report, patches=caused), 13)


def test_b4_does_not_take_another_patch_for_ours(honest: facts.Report) -> None:
    stranger = dataclasses.replace(mails.parse(eml(4), "test"), message_id="x@y", subject="mm: other")
    (check,) = mail.b4_check(honest, stranger)
    assert check["status"] == "warn"
    assert "does not have" in check["summary"]


def test_known_findings_warn_in_b4(report: facts.Report, journal_path: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.json"
    baseline.write(known, [v.finding for v in report.findings], report.levels)
    with Journal(journal_path) as journal:
        found = facts.load(journal, baseline=known)
    caused = [
        dataclasses.replace(p, caused=[v.finding.name for v in found.findings][:1]) if p.number == 13 else p
        for p in found.patches
    ]
    checks = mail.b4_check(dataclasses.replace(found, patches=caused), mails.parse(eml(13), "test"))
    assert {c["status"] for c in checks if c["tool"].endswith("finding")} == {"warn"}


B4 = """
import email, email.policy, json, sys
from b4.review import checks
message = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
print(json.dumps(checks._run_external_cmd(sys.argv[2:], message, sys.argv[1])))
"""


def test_b4s_own_runner_takes_it(journal_path: Path) -> None:
    """In a process of its own: b4 changes how Python's email package encodes."""
    argv = [sys.executable, "-m", "harness.cli", "report", "--journal", str(journal_path), "--b4-check"]
    done = subprocess.run([sys.executable, "-c", B4, str(ROOT), *argv], input=eml(13), capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert found and all(c["tool"].startswith("kvmirror") for c in found)
    assert not any("invalid JSON" in c["summary"] or "exited with" in c["summary"] for c in found)


def test_our_series_and_the_synthetic_run_go_together() -> None:
    assert [p["sha256"] for p in synthetic.PATCHES] == [sha256(p.path.read_bytes()).hexdigest() for p in SERIES.patches]
    assert len(SERIES.patches) == model.LAST
