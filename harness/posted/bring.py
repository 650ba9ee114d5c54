"""A series as it was posted, made into a series folder: from mails, however they are kept, or a range of commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import InputError, SeriesError
from harness.jsonable import Json
from harness.posted import base as mail_base
from harness.posted import choice, sources
from harness.posted import letter as mail_posted
from harness.posted.choice import Chosen
from harness.posted.letter import Letter
from harness.posted.sources import Raw
from harness.process import PROGRESS, side_by_side
from harness.series import Mail, folder, harmless, parameter, whole
from harness.series import mail as mails
from kvmodel import series as model
from kvmodel.series import Claim

READERS: Final = 2  # git's reader is started for each mail, and most of its time is waiting


@dataclass(frozen=True)
class Imported:
    """The series folder that was made, and what is to be said of it: mails that were left out, and why; what was done
    to others; on which base it was posted."""

    series: folder.Series
    notes: tuple[str, ...]


def bring_in(source: str, target: Path, *, linux: Path | None = None, version: int | None = None) -> Imported:
    """The mails of ``source`` become the series folder ``target``, or the range of commits of ``linux`` that it names.

    ``version`` chooses one of several.

    Raises SeriesError or InputError, naming what is refused and why; then nothing is left at ``target``.
    """
    target = target.expanduser().absolute()
    _free(target)
    if sources.is_range(source) and linux is not None:
        if version is not None:
            raise InputError(f"--version {version}: a range of commits has no versions; name another range")
        line = sources.commits(source, linux.expanduser())
        base = mail_base.of_line(line)
        if not line.patches:
            raise SeriesError(f"{source}: its commits have no changes; name another range")
        for mail in line.patches:
            _ = mail.files  # what is unsafe is refused
        chosen = Chosen(line.title, line.patches, tuple(f"left out: {words}" for words in line.left_out))
    else:
        chosen = _of_mails(source, version)
        base = mail_base.of(linux)
    series = _written(target, chosen, base | _said(chosen))
    assumed = _assumed(series) if linux is None and not series.base_commit and not series.mirrored else ()
    return Imported(series, (*chosen.notes, *_on_base(chosen, series), *assumed))


def _assumed(series: folder.Series) -> tuple[str]:
    """The note on a base that neither the mails nor the user named."""
    return (
        f"the mails name no base; {folder.INDEX} has Linux {series.base_version} (another with --linux), on which they "
        "have still to apply: series check --no-build",
    )


def _said(chosen: Chosen) -> dict[str, Json]:
    """What series.toml keeps of the base as the mails say it: ``base_commit`` and ``prerequisite_patch_ids``."""
    commit = dict(chosen.trailers).get("base-commit")
    ids = [value for key, value in chosen.trailers if key == "prerequisite-patch-id"]
    return ({"base_commit": commit} if commit else {}) | ({"prerequisite_patch_ids": ids} if ids else {})


def _of_mails(source: str, version: int | None) -> Chosen:
    found = sources.gather(source)
    chosen = choice.choose(read(found.mails), version)
    left = tuple(f"not read: {words}" for words in found.left_out)
    return Chosen(chosen.title, chosen.patches, (*left, *chosen.notes), chosen.trailers)


def read(raws: Sequence[Raw]) -> list[Letter]:
    """Every mail read, in order; SeriesError for more of them than a series has."""
    if len(raws) > sources.MAX_MAILS:
        raise SeriesError(f"{raws[0].name} and on: {len(raws)} mails are {sources.TOO_MANY_MAILS}")
    with PROGRESS.task("reading mails", total=len(raws)) as task:

        def some(first: int) -> list[list[Letter]]:
            found = []
            for raw in raws[first::READERS]:
                found.append(mail_posted.letters(raw.data, raw.name))
                task.advance()
            return found

        parts = side_by_side({str(n): lambda n=n: some(n) for n in range(READERS)})  # type: ignore[misc]
    return [letter for at in range(len(raws)) for letter in parts[str(at % READERS)][at // READERS]]


def _free(target: Path) -> None:
    try:
        taken = target.exists() and (not target.is_dir() or any(target.iterdir()))
    except OSError as error:
        raise InputError(f"{target} cannot be made: {error.strerror}; name another folder") from error
    if taken:
        raise SeriesError(f"{target} is there already: name a folder that is not")
    for parent in target.parents:
        if parent.exists():
            if not parent.is_dir():
                raise InputError(f"{target} cannot be made: {parent} is a file; name another folder")
            break


def _on_base(chosen: Chosen, series: folder.Series) -> list[str]:
    """What the mails say of the base, beside the one that series.toml has now."""
    said = dict(chosen.trailers)
    notes = []
    if series.base_version == mail_base.UNKNOWN:
        notes.append("the commit on which the range stands is no kernel source: its version is not known")
    if _like_mirrored(chosen.patches) and not series.mirrored:
        notes.append(
            "these are the subjects and authors of the series that is mirrored, but not its Message-IDs or claims: "
            "it is taken for another version, without a mirror"
        )
    if commit := said.get("base-commit"):
        notes.append(
            f"posted on base-commit {harmless(commit, 60)}; {folder.INDEX} names Linux {series.base_version} "
            "(another with --linux), on which it has still to apply: series check --no-build"
        )
    needed = [
        f"{key.removeprefix('prerequisite-')} {value}" for key, value in chosen.trailers if key.startswith("prereq")
    ]
    if needed:
        shown = ", ".join(harmless(words, 80) for words in needed[: choice.FEW])
        more = f" and {len(needed) - choice.FEW} more" if len(needed) > choice.FEW else ""
        notes.append(
            f"it says that it needs other patches first ({shown}{more}): they are not among these; --on names them"
        )
    return notes


def _is_mirrored(patches: Sequence[Mail]) -> bool:
    """Whether these are the mails of the series that ``kvmodel`` mirrors, and not another version of it: the same
    subjects by the same people, with the same claims and, where they have any, the same Message-IDs."""
    return _like_mirrored(patches) and all(
        mail.message_id in ("", known.message_id) and _claim(mail, known) is known.claim
        for mail, known in zip(patches, model.PATCHES, strict=True)
    )


def _like_mirrored(patches: Sequence[Mail]) -> bool:
    return [(p.subject, p.author) for p in patches] == [(p.subject, p.author) for p in model.PATCHES]


def _claim(mail: Mail, known: model.MirroredPatch | None) -> Claim:
    """What the mail claims; of the mirrored series also what is not said in it, but known."""
    implied = known is not None and mail.claim is Claim.NONE and known.claim is Claim.IMPLIED
    return Claim.IMPLIED if implied else mail.claim


def _written(target: Path, chosen: Chosen, base: Mapping[str, Json]) -> folder.Series:
    """The series folder at ``target``; whole, or not at all."""
    patches = chosen.patches
    mirrored = _is_mirrored(patches)
    name = folder.OWN if mirrored else target.name
    if name == folder.OWN and not mirrored:
        name = f"another-{name}"  # the mirror is of one series only
    with whole.made(target) as work:
        rows = [_row(work, number, mail, len(patches), mirrored) for number, mail in enumerate(patches, 1)]
        added = parameter.found([mail.files for mail in patches])
        folder.write(work, name=name, title=chosen.title or target.name, base=base, rows=rows, parameters=added)
        _as_posted(folder.read(work), patches)
    return folder.read(target)


def _row(work: Path, number: int, mail: Mail, total: int, mirrored: bool) -> dict[str, Json]:
    """Write one patch, and give its table in series.toml."""
    known = model.patch(number) if mirrored else None
    message_id = mail.message_id or (known.message_id if known else "")
    claim = _claim(mail, known)
    name = mails.file_name(number, mail.subject)
    (work / name).write_text(mails.written(mail, number, total, message_id), encoding="utf-8")
    return {
        "number": number,
        "file": name,
        "subject": mail.subject,
        "author": mail.author,
        "message_id": message_id,
        "files": [f.path for f in mail.files],
        "claim": claim.value,
    }


def _as_posted(series: folder.Series, patches: Sequence[Mail]) -> None:
    """What is in the folder is what was read of the mails."""
    for patch, mail in zip(series.patches, patches, strict=True):
        if (patch.mail.message, patch.mail.diff) != (mail.message, mail.diff):
            raise SeriesError(
                f"{harmless(mail.name)}: its text cannot be kept in a series folder as it is; "
                "send it in UTF-8, made with git format-patch"
            )
