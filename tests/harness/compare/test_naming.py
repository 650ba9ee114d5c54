"""What names a run."""

from pathlib import Path

import pytest

from harness.compare.naming import Name, parse
from harness.errors import InputError

FILE = Path("j.sqlite")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("7", (None, 7, None, None)),
        ("7@18", (None, 7, 18, None)),
        ("7@18/1", (None, 7, 18, "1")),
        ("@0/unset", (None, None, 0, "unset")),
        ("7@45/kvm_intel.mbec=0,kvm.mode=safe", (None, 7, 45, "kvm.mode=safe,kvm_intel.mbec=0")),
        ("j.sqlite", (FILE, None, None, None)),
        ("j.sqlite:3", (FILE, 3, None, None)),
        ("j.sqlite:3@18/0", (FILE, 3, 18, "0")),
        ("j.sqlite@18", (FILE, None, 18, None)),
        ("a@b/j.sqlite:3@1", (Path("a@b/j.sqlite"), 3, 1, None)),
        ("two:2:3", (Path("two:2"), 3, None, None)),
        ("7@18x", (Path("7@18x"), None, None, None)),
    ],
)
def test_a_name_has_its_parts(text: str, wanted: tuple[Path | None, int | None, int | None, str | None]) -> None:
    assert parse(text) == Name(text, *wanted)


def test_a_file_of_such_a_name_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("odd@18", "odd:2"):
        Path(name).touch()
        assert parse(name) == Name(name, Path(name))
    assert parse("./odd@18@18").journal == Path("odd@18")


def test_what_others_read_has_no_folder() -> None:
    assert parse("/home/a/j.sqlite:3@18/1").short == "j.sqlite:3@18/1"
    assert parse("3@18").short == "3@18"


@pytest.mark.parametrize("text", ["", "1@18/2", "1@18/", "1@18/mbec=1"])
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"JOURNAL:RUN|not one of unset, 0, 1"):
        parse(text)
