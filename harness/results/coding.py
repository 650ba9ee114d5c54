"""Outcomes and what the contract allows as the journal's JSON texts, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from harness.jsonable import Json
from harness.results.verdict import Contract
from kvmodel.question.outcome import Allowed, Kind, NotApplicable, Outcome, Place


def _outcome_body(outcome: Outcome) -> dict[str, Json]:
    body: dict[str, Json] = {"kind": outcome.kind.value, "code": outcome.code, "number": outcome.number}
    for name in ("gpa", "gla"):
        place = getattr(outcome, name)
        if place is not None:
            body[name] = [place.base, place.offset]
    if outcome.defined != Outcome.__dataclass_fields__["defined"].default:
        body["defined"] = outcome.defined
    if outcome.note:
        body["note"] = outcome.note
    if outcome.turns:
        body["turns"] = [_outcome_body(turn) for turn in outcome.turns]
    return body


@lru_cache(maxsize=1 << 14)
def outcome_json(outcome: Outcome) -> str:
    """The function gives an outcome as its journal row, without the fields that say nothing."""
    return json.dumps(_outcome_body(outcome), sort_keys=True)


@lru_cache(maxsize=1 << 14)
def outcome_of(body: str) -> Outcome:
    """The function is the inverse of ``outcome_json``."""
    return _outcome_from(json.loads(body))


def _outcome_from(fields: Mapping[str, Any]) -> Outcome:
    found = {**fields, "kind": Kind(fields["kind"])}
    for name in ("gpa", "gla"):
        if name in found:
            found[name] = Place(*found[name])
    if "turns" in found:
        found["turns"] = tuple(_outcome_from(turn) for turn in found["turns"])
    return Outcome(**found)


@lru_cache(maxsize=1 << 14)
def contract_json(contract: Contract) -> str:
    """The function gives what the contract allows as its journal row."""
    if isinstance(contract, NotApplicable):
        return json.dumps({"rule": contract.rule, "reason": contract.reason})
    return json.dumps([[outcome_json(a.outcome), a.rule, a.section] for a in contract])


@lru_cache(maxsize=1 << 14)
def contract_of(body: str) -> Contract:
    """The function is the inverse of ``contract_json``."""
    found = json.loads(body)
    if isinstance(found, dict):
        return NotApplicable(found["rule"], found["reason"])
    return tuple(Allowed(outcome_of(outcome), rule, section) for outcome, rule, section in found)
