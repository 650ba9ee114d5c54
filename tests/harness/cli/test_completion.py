"""What a shell completes: the generated scripts asked as the shell asks them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from harness.cli import completion, main
from harness.questions import core
from tests.programs import program


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "kvmirror.bash"
    path.write_text(completion.script("bash", main.parser()))
    return path


def complete(script: Path, *words: str) -> list[str]:
    """What bash offers behind ``words``, the last of which is being typed."""
    program = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_kvmirror; '
    program += 'printf "%s\\n" "${COMPREPLY[@]}"'
    argv = ["bash", "-c", program, "bash", str(script), "kvmirror", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=script.parent)
    assert not done.stderr
    return done.stdout.split()


def test_commands_and_subcommands(bash: Path) -> None:
    offered = complete(bash, "")
    assert {"validate", "run", "predict", "report", "series", "doctor", "config", "completion"} <= set(offered)
    assert complete(bash, "val") == ["validate"]
    assert complete(bash, "series", "") == ["show", "apply", "build", "check", "import"]
    assert complete(bash, "completion", "") == list(completion.SHELLS)


def test_options_of_the_command_that_is_typed(bash: Path) -> None:
    assert complete(bash, "validate", "--le") == ["--levels"]
    assert complete(bash, "series", "check", "--pa") == ["--patches"]
    assert "--levels" not in complete(bash, "findings", "--")
    assert "--config" in complete(bash, "--")


def test_levels_one_after_the_other(bash: Path) -> None:
    assert complete(bash, "validate", "--levels", "1") == ["1", *(str(n) for n in range(10, 19))]
    assert complete(bash, "validate", "--levels", "0,11,18") == ["0,11,18"]
    assert complete(bash, "validate", "--levels", "0,17") == ["0,17"]
    assert len(complete(bash, "predict", "--level", "")) == 19


@pytest.fixture
def sixty(tmp_path: Path) -> Path:
    """A folder of another series."""
    folder = tmp_path / "sixty"
    folder.mkdir()
    for number in range(1, 61):
        (folder / f"{number:04}-x.patch").touch()
    return folder


def test_levels_are_those_of_the_series_that_is_named(bash: Path, sixty: Path) -> None:
    named = ("validate", "--series", str(sixty), "--levels")
    assert complete(bash, *named, "0,6") == ["0,6", "0,60"]
    assert complete(bash, "validate", "--series", "=", str(sixty), "--levels", "59") == ["59"]
    assert len(complete(bash, "run", "--series", str(sixty), "--level", "")) == 61
    assert complete(bash, "validate", "--series", str(sixty / "nowhere"), "--levels", "6") == ["6"]


def test_parameters_and_vector_parts(bash: Path) -> None:
    assert complete(bash, "validate", "--param", "") == ["unset", "0", "1", "all"]
    assert complete(bash, "run", "--level", "3", "--param", "") == ["unset", "0", "1"]
    assert set(complete(bash, "validate", "--vectors", "")) == set(core.NAMES)
    assert complete(bash, "validate", "--vectors", "thin", "cor") == ["core"]
    assert complete(bash, "validate", "--vectors", "thin", "--job") == ["--jobs"]
    assert "permissions_4k" in complete(bash, "run", "--level", "3", "perm")


def test_files_and_choices(bash: Path) -> None:
    assert complete(bash, "report", "--html", "kv") == ["kvmirror.bash"]
    assert complete(bash, "series", "check", "--format", "") == ["text", "markdown", "json"]
    assert complete(bash, "validate", "--jobs", "") == []


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_shell_itself_takes_the_script(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["completion", shell]) == 0
    text = capsys.readouterr().out
    for word in ("validate", "--levels", "permissions_4k", "unset"):
        assert word.lstrip("-") in text
    (tmp_path / "script").write_text(text)
    argv = [program(shell), "-n", str(tmp_path / "script")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_command_and_option_is_in_the_script(shell: str) -> None:
    words = set(re.findall(r"[\w-]+", completion.script(shell, main.parser()).replace(" -l ", " --")))
    for path, command in completion.commands_of(main.parser()).items():
        assert set(path.split()) <= words
        for action in command._actions:
            assert {o for o in action.option_strings if o.startswith("--")} <= words


def fish_offers(line: str, folder: Path) -> list[str]:
    """What fish itself offers behind ``line``."""
    script = folder / "kvmirror.fish"
    script.write_text(completion.script("fish", main.parser()))
    argv = [program("fish"), "-N", "-c", 'source $argv[1]; complete -C "$argv[2]"', str(script), line]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=folder)
    assert not done.stderr
    return [offer.split("\t")[0] for offer in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("kvmirror val", ["validate"]),
        ("kvmirror series ", ["apply", "build", "check", "import", "show"]),
        ("kvmirror validate --le", ["--levels"]),
        ("kvmirror series check --pa", ["--patches"]),
        ("kvmirror validate --levels 0,17", ["0,17"]),
        ("kvmirror run --level 3 --param ", ["0", "1", "unset"]),
        ("kvmirror validate --vectors thin cor", ["core"]),
        ("kvmirror validate --vectors thin --job", ["--jobs"]),
        ("kvmirror validate --vectors thin core --param u", ["unset"]),
        ("kvmirror validate --levels 3 thi", []),
        ("kvmirror run --level 3 permissions_4", ["permissions_4k"]),
        ("kvmirror run --level 3 thin permissions_4", ["permissions_4k"]),
        ("kvmirror report --html kvmirror.fi", ["kvmirror.fish"]),
    ],
)
def test_fish_offers(line: str, offered: list[str], tmp_path: Path) -> None:
    assert sorted(fish_offers(line, tmp_path)) == offered


@pytest.fixture(scope="module")
def zsh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pexpect.spawn[str]]:
    """A shell at its prompt, with the script in its fpath; Control-T shows the line that stands there and clears it."""
    folder = tmp_path_factory.mktemp("zsh")
    (folder / "_kvmirror").write_text(completion.script("zsh", main.parser()))
    (folder / ".zshrc").write_text(
        "fpath+=$HOME; autoload -U compinit && compinit -D; bindkey '^I' complete-word; unset zle_bracketed_paste\n"
        "shown() { print -r -- \"<<$BUFFER>>\"; zle kill-buffer }; zle -N shown; bindkey '^T' shown; PS1='READY>'\n"
    )
    environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(folder)}
    shell = pexpect.spawn(program("zsh"), ["-o", "noglobalrcs", "-i"], env=environment, encoding="utf-8", timeout=20,
                          cwd=str(folder), dimensions=(60, 200))  # fmt: skip
    shell.expect("READY>")
    yield shell
    shell.close(force=True)


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("kvmirror val", "kvmirror validate "),
        ("kvmirror series sh", "kvmirror series show "),
        ("kvmirror validate --le", "kvmirror validate --levels "),
        ("kvmirror series check --pa", "kvmirror series check --patches "),
        ("kvmirror validate --levels 0,17", "kvmirror validate --levels 0,17 "),
        ("kvmirror run --level 3 --param u", "kvmirror run --level 3 --param unset "),
        ("kvmirror validate --vectors thin cor", "kvmirror validate --vectors thin core "),
        ("kvmirror validate --vectors thin --job", "kvmirror validate --vectors thin --jobs "),
        ("kvmirror validate --vectors thin core --param u", "kvmirror validate --vectors thin core --param unset "),
        ("kvmirror validate --levels 3 thi", "kvmirror validate --levels 3 thi"),
        ("kvmirror run --level 3 permissions_4", "kvmirror run --level 3 permissions_4k "),
        ("kvmirror run --level 3 thin core permissions_4", "kvmirror run --level 3 thin core permissions_4k "),
        (
            "kvmirror validate --vectors thin core permissions_4",
            "kvmirror validate --vectors thin core permissions_4k ",
        ),
        ("kvmirror report --html _kv", "kvmirror report --html _kvmirror "),
    ],
)
def test_zsh_completes(zsh: pexpect.spawn[str], typed: str, line: str) -> None:
    zsh.send(f"{typed}\t\x14")
    zsh.expect("<<(.*?)>>")
    assert zsh.match[1] == line


def test_fish_and_zsh_know_the_levels_of_the_series_that_is_named(
    zsh: pexpect.spawn[str], sixty: Path, tmp_path: Path
) -> None:
    assert fish_offers(f"kvmirror validate --series {sixty} --levels 0,60", tmp_path) == ["0,60"]
    assert len(fish_offers(f"kvmirror run --series {sixty} --level ", tmp_path)) == 61
    assert len(fish_offers("kvmirror run --level ", tmp_path)) == 19
    for option, begun, whole in (("--levels", "0,59", "0,59 "), ("--levels", "19", "19 ")):
        typed = f"kvmirror validate --series {sixty} {option} "
        zsh.send(f"{typed}{begun}\t\x14")
        zsh.expect("<<(.*?)>>")
        assert zsh.match[1] == f"{typed}{whole}"
    zsh.send("kvmirror validate --levels 19\t\x14")
    zsh.expect("<<(.*?)>>")
    assert zsh.match[1] == "kvmirror validate --levels 19"
