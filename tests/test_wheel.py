"""The wheel in an empty environment: the commands run from it, and it has every file that they read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import places
from harness.build import Cache, packages, probe
from harness.series import folder as series
from tests.harness.recording import made

ROOT = Path(__file__).resolve().parents[1]
VECTOR = "e4k.l1=rwx-.l2=rwxu.mt6.xb0.ub0.fetch.gpuwx.guuwx.pg64.cpl3.wp1.smep0.smap0.nxe1.ad0.mbec=on.xo1.ev0.env=std"
PREDICT = ("predict", "--level", "18", "--param", "1", "--steps", "--json", VECTOR)
ASK = """
import json
from pathlib import Path
from harness import places
from harness.build import Cache, packages, probe
from harness.series import folder as series
print(json.dumps({
    "checkout": places.CHECKOUT and str(places.CHECKOUT),
    "packages": str(places.PACKAGES),
    "files": {str(p.relative_to(places.DATA)): [p.read_text(encoding="utf-8"), p.stat().st_mode & 0o111 != 0]
              for folder in (places.IMAGES, places.PATCHES) for p in folder.rglob("*") if p.is_file()},
    "series": [p.subject for p in series.read().patches],
    "needs": [p.name for p in packages.packages()],
    "probe": probe.build(Cache(Path("cache"))).read_bytes().hex(),
}))
"""


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what the index has for it; its programs."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    subprocess.run([*pip, "wheel", ROOT, "--no-deps", "-w", folder / "made"], check=True)
    (wheel,) = (folder / "made").glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    subprocess.run([*pip, "--python", folder / "venv" / "bin" / "python", "install", wheel], check=True)
    return folder / "venv" / "bin"


def run(venv: Path, cwd: Path, *argv: str, code: int = 0) -> str:
    """The output of a program of the environment; nothing leads it back to the checkout."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd)}
    done = subprocess.run(
        [venv / argv[0], *argv[1:]], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def test_it_predicts_what_the_checkout_predicts(venv: Path, tmp_path: Path) -> None:
    ours = subprocess.run(
        [sys.executable, "-m", "harness.cli", *PREDICT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(ours.stdout)["steps"]
    assert run(venv, tmp_path, "kvmirror", *PREDICT) == ours.stdout


def test_it_foresees(venv: Path, tmp_path: Path) -> None:
    """Mirror and contract are all it takes."""
    out = run(venv, tmp_path, "kvmirror", "foresee", "--levels", "0", "--vectors", "thin", "--journal", "j.sqlite")
    assert "no findings foreseen" in out and (tmp_path / "j.sqlite").is_file()


def test_it_replays_a_recording(venv: Path, tmp_path: Path) -> None:
    """A stranger's recording and an empty environment are all it takes; 1 says that it has findings."""
    recording = made.recording(tmp_path)
    out = run(venv, tmp_path, "kvmirror", "replay", str(recording), "--html", "run.html", code=1)
    assert "0 drift" in out and "F9" in out and (tmp_path / "run.html").stat().st_size > 10_000
    assert "no answer differs" in run(venv, tmp_path, "kvmirror", "compare", str(recording), str(recording))


def test_it_has_every_file_that_is_read(venv: Path, tmp_path: Path) -> None:
    told = json.loads(run(venv, tmp_path, "python", "-I", "-c", ASK))
    assert told["checkout"] is None and places.CHECKOUT == ROOT
    assert Path(told["packages"]).is_relative_to(venv.parent)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "images", "patches"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = listed.stdout.strip("\0").split("\0")
    ours = {n: [(ROOT / n).read_text(encoding="utf-8"), (ROOT / n).stat().st_mode & 0o111 != 0] for n in names}
    assert told["files"] == ours
    assert told["series"] == [p.subject for p in series.read().patches]
    assert told["needs"] == [p.name for p in packages.packages()]
    # The probe's make asks harness.protocol for its header: the installed one.
    assert told["probe"] == probe.build(Cache(tmp_path / "ours")).read_bytes().hex()


def test_it_shows_the_series(venv: Path, tmp_path: Path) -> None:
    shown = run(venv, tmp_path, "kvmirror", "series", "show")
    assert "KVM: x86: Enable module parameter for MBEC" in shown


def test_files_that_lie_beside_their_module_came_along(venv: Path) -> None:
    (installed,) = venv.parent.glob("lib/python3*/site-packages")
    for folder in ("harness", "kvmodel"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                theirs = installed / path.relative_to(ROOT)
                assert theirs.read_bytes() == path.read_bytes()
                assert (theirs.stat().st_mode & 0o111 != 0) == (path.stat().st_mode & 0o111 != 0), path
