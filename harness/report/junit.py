"""JUnit XML as Jenkins' xUnit plugin, GitLab and GitHub's actions read it.

A suite is a level with a parameter value, a case a group of vectors. A new finding is a failure (the kernel under
test), drift an error (the test itself: our model); a finding that the baseline holds passes, and says so.
"""

from __future__ import annotations

import time
from xml.etree import ElementTree

from harness.report.facts import Report
from harness.report.groups import CaseGroup, some
from harness.report.text import NAME_MAX, plain
from harness.results import Cell


def _attributes(**values: object) -> dict[str, str]:
    return {name: plain(value, NAME_MAX) for name, value in values.items()}


def _text(lines: list[str]) -> str:
    return "\n".join(plain(line) for line in lines)


def render(report: Report, groups: dict[Cell, dict[str, CaseGroup]]) -> str:
    """The function gives the document."""
    root = ElementTree.Element("testsuites")
    suites = [_series(report)] if report.patches else []
    suites += [_suite(report, cell, found) for cell, found in groups.items()]
    for suite in suites:
        root.append(suite)
    totals = {name: sum(int(s.attrib[name]) for s in suites) for name in ("tests", "failures", "errors")}
    root.attrib |= _attributes(name="kvmirror", **totals, time=f"{report.seconds or 0:.1f}")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _finish(suite: ElementTree.Element, name: str, seconds: float, begun: float) -> ElementTree.Element:
    cases = suite.findall("testcase")
    suite.attrib |= _attributes(
        name=name,
        tests=len(cases),
        failures=sum(c.find("failure") is not None for c in cases),
        errors=sum(c.find("error") is not None for c in cases),
        skipped=sum(c.find("skipped") is not None for c in cases),
        time=f"{seconds:.1f}",
        timestamp=time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(begun)),
        hostname="kvmirror",
    )
    return suite


def _case(suite: ElementTree.Element, classname: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", _attributes(classname=classname, name=name))


def _series(report: Report) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite")
    for p in report.patches:
        case = _case(suite, "kvmirror.series", f"{p.number:04} {p.subject}")
        for what, said in (("applies", p.applies), ("builds", p.builds)):
            if said.holds is False and case.find("failure") is None:
                failure = ElementTree.SubElement(case, "failure", _attributes(type="series", message=f"{what}: {said}"))
                failure.text = plain(said)
        if p.broken_claim and case.find("failure") is None:
            message = f"the patch {p.claim_text}"
            failure = ElementTree.SubElement(case, "failure", _attributes(type="claim", message=message))
            failure.text = _text([message, f"kvmirror changes --patch {p.number}"])
        if not p.ran and case.find("failure") is None:
            ElementTree.SubElement(case, "skipped", _attributes(message=f"level {p.number} did not run"))
        elif p.claim_text and case.find("failure") is None:
            ElementTree.SubElement(case, "system-out").text = _text([f"the patch {p.claim_text}"])
    return _finish(suite, "series", 0.0, report.begun)


def _suite(report: Report, cell: Cell, groups: dict[str, CaseGroup]) -> ElementTree.Element:
    level, param = cell
    suite = ElementTree.Element("testsuite")
    for name, group in groups.items():
        case = _case(suite, f"kvmirror.level{level}.param_{param}", name)
        _judge(report, cell, case, group)
    if told := report.unsteady_at(cell):
        case = _case(suite, f"kvmirror.level{level}.param_{param}", "reproducible")
        message = f"{len(told)} answered otherwise than in an earlier run, all else the same"
        ElementTree.SubElement(case, "error", _attributes(type="not reproducible", message=message)).text = _text(told)
    seconds = sum(r.seconds for r in report.rows if (r.level, r.param) == cell)
    return _finish(suite, f"level {level}, parameter {param}", seconds, report.begun)


def _judge(report: Report, cell: Cell, case: ElementTree.Element, group: CaseGroup) -> None:
    found = [v for v in report.findings if v.finding.name in group.findings]
    lines = []
    for view in found:
        state = "known" if view.known else "new" if report.has_baseline else "finding"
        lines += [f"{view.finding.name} ({state}): {view.finding.title}"]
        lines += [view.finding.whence, f"cause {view.finding.cause}"]
        lines += [view.moved] if view.moved else []
        lines += some(group.findings[view.finding.name])
    if group.drift:
        message = f"drift: {len(group.drift)} of {group.vectors} answers differ from the mirror"
        reproduce = f"{report.run_again} --level {cell[0]} --param {cell[1]} {group.drift[0]}"
        error = ElementTree.SubElement(case, "error", _attributes(type="drift", message=message))
        error.text = _text([*some(group.drift), reproduce, *lines])
    elif group.new:
        new = [v for v in found if not v.known]
        message = f"{', '.join(v.finding.name for v in new)}: {new[0].finding.title}"
        failure = ElementTree.SubElement(case, "failure", _attributes(type="finding", message=message))
        failure.text = _text([*lines, *(v.command for v in new)])
    elif group.skipped:
        ElementTree.SubElement(case, "skipped", _attributes(message=group.skipped))
    elif lines:
        ElementTree.SubElement(case, "system-out").text = _text(lines)
