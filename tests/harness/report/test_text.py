"""What does not show as itself is shown as its escape; every format keeps its own lines and columns."""

import subprocess

import pytest

from harness.report import text

ID = "e4k.l1=rw-u.l2=rwxu.mt6.xb0.ub0.fetch.gpuwx.guuwx.pg64.cpl3.wp1.smep0.smap0.nxe1.ad0.mbec=on.xo1.ev0.env=std"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("line\nbreak\ttab\0", "line\\x0abreak\\x09tab\\x00"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("Mickaël Salaün", "Mickaël Salaün"),
    ],
)
def test_hidden_characters_are_shown(raw: str, shown: str) -> None:
    assert text.plain(raw) == shown


def test_a_long_name_is_cut_with_a_count() -> None:
    assert text.plain("x" * 1000, 400) == "x" * 400 + "... (600 more characters)"


def test_markdown_sees_nothing_of_its_own() -> None:
    escaped = text.markdown("<b>|`*_[x](y)#1 @all !2\n# head")
    assert "<" not in escaped
    for sign in "|`*_[]()#@!":
        assert all(escaped[i - 1] == "\\" for i, c in enumerate(escaped) if c == sign and i)
    assert "\n" not in escaped


def test_code_survives_backticks() -> None:
    assert text.code("a``b") == "```a``b```"
    assert text.code("`") == "`` ` ``"


def test_ktap_descriptions_hold_no_directive() -> None:
    assert text.ktap("name # SKIP all\nok 1") == "name No. SKIP all\\x0aok 1"
    assert text.ktap("") == "unnamed"


def test_lines_of_a_mail_fit() -> None:
    lines = text.wrapped("word " * 60 + "x" * 200, "    ", "  - ")
    assert max(map(len, lines)) <= text.MAIL_WIDTH
    assert lines[0].startswith("  - word")
    assert "".join("".join(lines).split()).endswith("x" * 200)


def test_a_wrapped_command_is_the_same_command() -> None:
    command = f"kvmirror run --level 18 --param 1 {ID} {ID}"
    lines = text.command_lines(command)
    assert max(map(len, lines)) <= text.MAIL_WIDTH
    script = 'kvmirror() { printf "%s\\n" "$@"; }\n' + "\n".join(lines)
    out = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.split() == command.split()[1:]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(4.21, "4.2 s"), (59.9, "1 min 00 s"), (187, "3 min 07 s"), (3725, "1 h 02 min")]
)
def test_durations_read_well(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown
