"""The reply for the list, and the answer to ``b4 review``'s external checks."""

from __future__ import annotations

import re
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parseaddr
from hashlib import sha256
from typing import Final

from harness.errors import InputError
from harness.questions import parameters
from harness.report.facts import FindingView, Report, plural, ranges
from harness.report.html import flat
from harness.report.series import NOT_RECORDED, PatchRow
from harness.report.text import MAIL_WIDTH, command_lines, duration, plain, wrapped
from harness.results import stands
from harness.series import Mail, Series

TOOL: Final = "kvmirror"
_NUMBERED: Final = re.compile(r"(?P<head>.+-)(?P<n>\d+)(?P<tail>-[^-@]+@.+)")
_STATES: Final = {"fail": "fail", "warn": "warn", "pass": "pass", "none": "warn"}
_FACTS: Final = ("kernel", "qemu", "bochs", "cpu", "host", "commit")


def cover_id(message_ids: list[str]) -> str:
    """The mail that a series' patches answer: git numbers a thread's Message-IDs, the cover letter is 1.

    Where patch 1 is mail 1, or the ids are not git's, it is patch 1's own.
    """
    if not message_ids or not message_ids[0]:
        return ""
    found = [_NUMBERED.fullmatch(m) for m in message_ids]
    parts = {(m["head"], m["tail"]) for m in found if m}
    if all(found) and len(parts) == 1 and all(m and int(m["n"]) == k for k, m in enumerate(found, 2)):
        head, tail = parts.pop()
        return f"{head}1{tail}"
    return message_ids[0]


def check_series(report: Report, series: Series) -> None:
    """The run was made of the folder's patches.

    Raises InputError when it was made of others.
    """
    if len(report.patches) > series.last:
        raise InputError(
            f"run {report.number} has {len(report.patches)} patches, {series.folder} has {series.last}: name the run's"
            " series folder with --series"
        )
    for row, patch in zip(report.patches, series.patches, strict=False):
        if row.sha256 and row.sha256 != sha256(patch.path.read_bytes()).hexdigest():
            raise InputError(
                f"run {report.number} was made of another {patch.path.name} than {series.folder} holds: name the run's"
                " series folder with --series, or run again"
            )


def hurdles(report: Report, series: Series) -> list[str]:
    """The reasons say why no Tested-by is offered; there are none where the run supports one."""
    found = report.tested_by_hurdles(series.last)
    own = [p.number for p in series.patches if not p.message_id or p.mail.message_id.strip("<>") != p.message_id]
    if own:
        found.append(f"the files of patches {ranges(own)} are not the mails as posted")
    if not any(p.sha256 for p in report.patches):
        found.append("the run did not record its patches' hashes")
    return found


def reply(report: Report, series: Series, tester: str) -> str:
    """The function gives the mail; ``tester`` is ``Name <address>``, or empty.

    Raises InputError when the tester has no address, or the run was made of other patches than ``series``.
    """
    check_series(report, series)
    mail = blank()
    if tester:
        name, address = parseaddr(plain(tester))
        if "@" not in address:
            raise InputError(f"--tester {plain(tester)!r} has no address: write 'Name <name@example.org>'")
        mail["From"] = _address(name, address)
    authors = {parseaddr(plain(p.author))[1]: parseaddr(plain(p.author))[0] for p in series.patches}
    to = [_address(name, address) for address, name in authors.items() if "@" in address]
    if to:
        mail["To"] = to
    mail["Subject"] = f"Re: [PATCH 00/{series.last}] {plain(series.title, 200)}"
    if answered := cover_id([p.message_id for p in series.patches]):
        mail["In-Reply-To"] = f"<{plain(answered)}>"
        mail["References"] = f"<{plain(answered)}>"
    return written(mail, _body(report, series, tester))


def blank() -> EmailMessage:
    """A mail without anything yet, of lines that a list can take."""
    return EmailMessage(policy=SMTP.clone(linesep="\n", max_line_length=MAIL_WIDTH))


def written(mail: EmailMessage, lines: list[str]) -> str:
    """The function gives the whole mail with ``lines`` as its body."""
    mail.set_content("\n".join(lines) + "\n", cte="8bit")
    return mail.as_bytes().decode("utf-8", "replace")


def _address(name: str, address: str) -> Address:
    try:
        return Address(name, addr_spec=address)
    except Exception:  # the email package raises several kinds for what is no address
        raise InputError(f"{plain(address)!r} is no mail address: mend it in the series' index or --tester") from None


def _body(report: Report, series: Series, tester: str) -> list[str]:
    against = "a model of the patched KVM code and against the SDM" if report.mirror_asked else "the SDM"
    lines = wrapped(
        "This series was run level by level (the base kernel with patches 1 to k) with nested guests. Each answer"
        f" that an L1 got was held against {against}."
    )
    lines += ["", "What was run:"]
    levels = ranges(report.levels)
    params = ", ".join(sorted({p for _, p in report.cells}, key=parameters.order))
    took = "" if report.seconds is None else f"; {duration(report.seconds)}"
    lines += wrapped(f"{report.answered}: levels {levels}; parameter {params}{took}", "    ", "  - ")
    facts = {name: report.provenance[name] for name in _FACTS if name in report.provenance}
    for name, value in flat(facts):
        lines += wrapped(f"{name}: {value}", "    ", "  - ")
    lines += ["", "What was seen:"]
    lines += wrapped(report.verdict, "    ", "  - ")
    total = report.totals
    agree = "all three agree" if report.mirror_asked else "kernel and SDM agree"
    lines += wrapped(
        f"{agree} on {total.agree}; {total.not_applicable} could not be decided; "
        f"{total.entry_failures} VM entries refused",
        "    ",
        "  - ",
    )
    lines += ["", "Patch by patch:"]
    for patch in report.patches:
        lines += _patch_lines(patch, len(report.patches))
    for view in report.findings:
        lines += ["", *_finding_lines(view)]
    lines.append("")
    if found := hurdles(report, series):
        lines += wrapped("No Tested-by from this run: " + "; ".join(found) + ".")
    elif tester:
        lines.append(f"Tested-by: {plain(tester)}")
    else:
        lines += wrapped("The run supports a Tested-by trailer; --tester 'Name <address>' adds it.")
    return lines


def patch_words(patch: PatchRow) -> list[str]:
    """The function gives what the run says of a patch, in a few words each."""
    words = []
    if not patch.ran:
        return [f"applies: {patch.applies}", f"builds: {patch.builds}", "its level was not run"]
    if patch.applies != NOT_RECORDED:
        words.append(f"applies: {patch.applies}")
    if patch.builds != NOT_RECORDED:
        words.append(f"builds: {patch.builds}")
    if patch.identity != NOT_RECORDED:
        words.append(f"object code: {patch.identity}")
    if patch.changes is None:
        words.append("no level below was run to compare with")
    else:
        against = "" if patch.compared_with == patch.number - 1 else f" against level {patch.compared_with}"
        claim = " although it claims no functional change" if patch.broken_claim else ""
        words.append(f"{plural(patch.changes, 'answer')} changed{against}{claim}")
    if patch.first_seen:
        words.append(f"first shows {', '.join(patch.first_seen)}")
    if patch.caused:
        words.append(f"causes {', '.join(patch.caused)}")
    if patch.drift:
        words.append(f"drift in {plural(patch.drift, 'answer')}")
    return words


def _patch_lines(patch: PatchRow, total: int) -> list[str]:
    title = wrapped(patch.subject, "        ", f"  {patch.number:2}/{total} ")
    return [*title, *wrapped("; ".join(patch_words(patch)), "        ")]


def _finding_lines(view: FindingView) -> list[str]:
    finding, smallest = view.finding, view.finding.smallest
    state = " (known)" if view.known else ""
    lines = wrapped(f"{finding.name}{state}: {finding.title}")
    lines += wrapped(finding.whence, "    ", "  - ")
    lines += wrapped(f"levels {'; '.join(view.cell_texts)}; {plural(len(finding.vectors), 'vector')}", "    ", "  - ")
    lines += wrapped(f"manual: {smallest.allowed} ({stands(smallest.section)})", "    ", "  - ")
    lines += wrapped(f"seen: {smallest.seen}", "    ", "  - ")
    if view.traces:
        lines += wrapped(f"KVM's tracepoints: {view.traces[0]}", "    ", "  - ")
    if finding.confirmed:
        lines += wrapped(finding.confirmed, "    ", "  - ")
    return [*lines, "  - to reproduce:", "", *command_lines(view.command)]


def which_patch(report: Report, mail: Mail) -> PatchRow | None:
    """The function gives the run's row of a posted patch: by Message-ID, else by subject (a number alone may be another
    version's).
    """
    wanted = mail.message_id.strip("<>")
    for row in report.patches:
        if wanted and row.message_id == wanted:
            return row
    for row in report.patches:
        if row.subject and row.subject == mail.subject:
            return row
    return None


def b4_check(report: Report, mail: Mail) -> list[dict[str, str]]:
    """The function gives the list that ``b4 review`` reads: tool, status, summary, url, details."""
    row = which_patch(report, mail)
    if row is None:
        what = "a cover letter" if mail.number == 0 else "a patch that the run does not have"
        status = "fail" if report.new_findings else "warn"
        return [_check("run", status if mail.number == 0 else "warn", f"{what}: {report.verdict}", [])]
    checks = [_check("behaviour", _STATES[row.state], "; ".join(patch_words(row)), [])]
    for view in report.findings:
        if view.finding.name in row.caused or view.finding.name in row.first_seen:
            caused = view.finding.name in row.caused
            status = "warn" if view.known or not caused else "fail"
            what = "causes" if caused else "first shows"
            checks.append(_check("finding", status, f"{what} {view.finding.title}", _finding_lines(view)))
    if report.status != "complete":
        checks.append(_check("run", "warn", f"the run is {report.status}", []))
    return checks


def _check(what: str, status: str, summary: str, details: list[str]) -> dict[str, str]:
    return {
        "tool": f"{TOOL} {what}",
        "status": status,
        "summary": plain(summary, 200),
        "url": "",
        "details": "\n".join(details),
    }
