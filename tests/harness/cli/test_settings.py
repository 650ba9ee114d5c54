"""The user's own defaults: found, read, refused, and beaten in the right order."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from harness.cli import main, settings
from harness.errors import InputError


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user without settings in an empty folder."""
    for setting in settings.SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


def user_writes(text: str) -> None:
    path = settings.user_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def asked(*argv: str) -> object:
    """The parsed command line."""
    return main.parser(settings.load()).parse_args(argv)


def test_nothing_is_set_where_nobody_says_so() -> None:
    assert settings.load() == {}
    args = vars(asked("validate"))
    assert (args["levels"], args["param"], args["vectors"], args["jobs"]) == ("all", "all", ["core"], None)


def test_the_nearer_file_beats_the_farther_and_each_key_says_where_it_is_from() -> None:
    user_writes('levels = "0-3"\nparam = 1\njobs = 1\n')
    Path("kvmirror.toml").write_text('levels = "0,18"\n')
    found = settings.load()
    assert found["levels"] == settings.Value("0,18", "kvmirror.toml")
    assert found["param"].value == "1" and found["param"].source == str(settings.user_file())
    args = vars(asked("validate"))
    assert (args["levels"], args["param"], args["jobs"]) == ("0,18", "1", 1)


def test_the_environment_beats_the_file_and_the_command_line_beats_both(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("kvmirror.toml").write_text('levels = "0-3"\nvectors = ["thin"]\n')
    monkeypatch.setenv("KVMIRROR_LEVELS", "11")
    assert vars(asked("validate"))["levels"] == "11"
    assert settings.load()["levels"].source == "KVMIRROR_LEVELS"
    assert vars(asked("validate", "--levels", "18"))["levels"] == "18"
    assert vars(asked("validate"))["vectors"] == ["thin"]
    assert vars(asked("validate", "--vectors", "core"))["vectors"] == ["core"]


def test_a_named_file_counts_alone() -> None:
    Path("kvmirror.toml").write_text("jobs = 5\n")
    Path("other.toml").write_text('param = "0"\n')
    assert set(settings.load(Path("other.toml"))) == {"param"}
    with pytest.raises(InputError, match=r"--config gone\.toml: there is no such file"):
        settings.load(Path("gone.toml"))


def test_a_range_of_parameters_is_no_default_of_a_command_about_one_level() -> None:
    Path("kvmirror.toml").write_text('param = "all"\n')
    assert vars(asked("predict", "--level", "18", "x"))["param"] == "unset"


def test_an_emulator_in_the_file_gives_way_to_the_unmended_one() -> None:
    Path("bochs").write_text("")
    Path("kvmirror.toml").write_text('bochs = "bochs"\n')
    args = vars(asked("validate", "--bochs-unmended"))
    assert args["bochs_unmended"] and args["bochs"] == Path("bochs")
    with pytest.raises(SystemExit):
        asked("validate", "--bochs-unmended", "--bochs", "bochs")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('level = "3"', r"kvmirror\.toml: there is no setting 'level'; did you mean 'levels'\?"),
        ("colour = 1", "there is no setting 'colour'; keys are levels, param"),
        ('[host]\nadress = "lab"', r"'host\.adress'; did you mean 'host\.address'"),
        ('host = "lab"', r"host is a table: write \[host\]"),
        ("jobs = 0", "jobs: 0 is no number of jobs: write 1 or more"),
        ("jobs = true", "jobs: True is no number"),
        ('jobs = "many"', "jobs: 'many' is no number"),
        ('levels = "0,x"', "levels: .*'x' is no level"),
        ('levels = "7-3"', "write 3-7"),
        ("levels = true", "levels: True is no text: write it in quotes"),
        ("param = 2", "param: .*'2' is not one of unset, 0, 1, all"),
        ('vectors = ["thin", "bogus"]', "vectors: .*bogus"),
        ("vectors = []", "is no list of vectors"),
        ('linux = "nowhere"', "linux: there is no nowhere"),
        ("series = 3", "series: 3 is no text"),
        ('[host]\naddress = "lab:99999"', r"write ssh://\[user@\]host"),
        ('[host]\naddress = ["lab", "root@lab:22"]', "names a machine twice"),
        ("levels = ", "'kvmirror config --example' prints a file that is right"),
    ],
)
def test_what_is_wrong_is_refused_by_name(text: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("kvmirror.toml").write_text(text)
    with pytest.raises(InputError, match=says) as raised:
        settings.load()
    assert "kvmirror.toml" in str(raised.value)
    assert main.main(["config"]) == 2
    assert "kvmirror: kvmirror.toml" in capsys.readouterr().err


def test_a_variable_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVMIRROR_HOSTS", "none")
    with pytest.raises(InputError, match="KVMIRROR_HOSTS=none: 'none' is no number"):
        settings.load()


def test_paths_are_of_the_files_own_folder(tmp_path: Path) -> None:
    (tmp_path / "xdg" / "kvmirror").mkdir(parents=True)
    (tmp_path / "xdg" / "kvmirror" / "patches").mkdir()
    user_writes('series = "patches"\njournal = "runs/j.sqlite"\n')
    found = settings.load()
    assert found["series"].value == tmp_path / "xdg" / "kvmirror" / "patches"
    assert found["journal"].value == tmp_path / "xdg" / "kvmirror" / "runs" / "j.sqlite"


def test_what_no_option_takes_is_in_the_environment_while_the_command_runs() -> None:
    Path("kvmirror.toml").write_text('cache = "there"\nmake_jobs = 3\n')
    values = settings.load()
    with settings.environment(values):
        assert os.environ["KVMIRROR_CACHE"] == "there" and os.environ["KVMIRROR_JOBS"] == "3"
    assert "KVMIRROR_CACHE" not in os.environ and "KVMIRROR_JOBS" not in os.environ


def test_the_example_is_read_back_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["config", "--example"]) == 0
    text = capsys.readouterr().out
    Path("kvmirror.toml").write_text(text)
    assert settings.load() == {}
    for setting in settings.SETTINGS:
        assert setting.variable in text
    # Every line uncommented; what must be there is made.
    for name in re.findall(r'"(?:~|/opt|/var)[^"]*"', text):
        made = Path(name.strip('"').replace("~", "home").lstrip("/"))
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text("")
        text = text.replace(name, f'"{made}"')
    Path("kvmirror.toml").write_text(re.sub(r"(?m)^#(\w+ = )", r"\1", text))
    assert set(settings.load()) == set(settings.BY_KEY)


def test_the_command_shows_value_and_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("kvmirror.toml").write_text('[host]\naddress = ["lab1", "root@lab2:2222"]\n')
    monkeypatch.setenv("KVMIRROR_PARAM", "0")
    assert main.main(["config"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(lines) == set(settings.BY_KEY)
    assert re.search(r"lab1,root@lab2:2222 +kvmirror\.toml$", lines["host.address"])
    assert re.search(r" 0 +KVMIRROR_PARAM$", lines["param"])
    assert lines["jobs"].endswith("built in")
    assert main.main(["config", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["param"] == {"value": "0", "source": "KVMIRROR_PARAM"}


def test_a_named_file_anywhere_before_the_command_sets_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.toml").write_text('levels = "18"\nvectors = ["thin"]\n')
    assert main.main(["--config", "mine.toml", "validate", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "level 18" in out and "level 0," not in out
