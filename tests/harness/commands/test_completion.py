"""What a shell completes: the generated scripts asked as the shell asks them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness import cli, vectors
from harness.commands import completion


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "kvmirror.bash"
    path.write_text(completion.script("bash", cli.parser()))
    return path


def complete(script: Path, *words: str) -> list[str]:
    """What bash offers behind ``words``, the last of which is being typed."""
    program = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _kvmirror; printf "%s\\n" "${COMPREPLY[@]}"'
    )
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


def test_parameters_and_vector_parts(bash: Path) -> None:
    assert complete(bash, "validate", "--param", "") == ["unset", "0", "1", "all"]
    assert complete(bash, "run", "--level", "3", "--param", "") == ["unset", "0", "1"]
    assert set(complete(bash, "validate", "--vectors", "")) == set(vectors.NAMES)
    assert complete(bash, "validate", "--vectors", "thin", "cor") == ["core"]
    assert complete(bash, "validate", "--vectors", "thin", "--job") == ["--jobs"]
    assert "permissions_4k" in complete(bash, "run", "--level", "3", "perm")


def test_files_and_choices(bash: Path) -> None:
    assert complete(bash, "report", "--html", "kv") == ["kvmirror.bash"]
    assert complete(bash, "series", "check", "--format", "") == ["text", "markdown", "json"]
    assert complete(bash, "validate", "--jobs", "") == []


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_shell_itself_takes_the_script(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    text = capsys.readouterr().out
    for word in ("validate", "--levels", "permissions_4k", "unset"):
        assert word.lstrip("-") in text
    (tmp_path / "script").write_text(text)
    if program := shutil.which(shell):
        done = subprocess.run([program, "-n", str(tmp_path / "script")], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_every_option_of_every_command_is_in_fishs_script() -> None:
    parser = cli.parser()
    text = completion.script("fish", parser)
    for command in completion.commands_of(parser):
        for name in command.subcommands:
            assert f"-a {name}\n" in text
        for option, _, _ in command.options:
            assert f" {'-l' if option.startswith('--') else '-s'} {option.lstrip('-')} " in text
