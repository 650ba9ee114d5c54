"""How a run is cut: no vector is lost or doubled, and what belongs together stays together."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest

from harness.errors import HostError
from harness.observe.l1 import Seen
from harness.observe.session import sampled
from harness.questions.core import core, regress
from harness.questions.loads import Work, plan
from harness.results import cpus
from harness.run import shards
from harness.run.done import Done, Part, merged, questions
from harness.run.judge import Voices
from harness.run.workers import Options, expected
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.program import ProgramVector
from tests.harness.settings import OFF, ON, UNSET

NAMED = Options(values_named=frozenset((level, value) for level in (16, 17, 18) for value in (OFF, ON)))


def shares(works: list[Work], options: Options) -> list[shards.Share]:
    return shards.shares(works, options.jobs, partial(expected, options=options), options.deadly)


def longest() -> Work:
    """The load that takes longest by far: the last level, the parameter on, no special environment."""
    return max(plan(core(), [18], [ON]), key=lambda work: work.size)


def test_each_work_is_in_one_share_and_a_cpu_is_one_boot() -> None:
    works = list(plan(core(), range(19), [UNSET, OFF, ON]))
    named = frozenset((level, value) for level in range(3, 19) for value in (OFF, ON))
    offered = Voices(cpus.emulated).offered
    found = shares(works, Options(values_named=named, offered=offered))
    assert Counter(id(w) for share in found for w in share) == Counter(map(id, works))
    assert all(len({w.load.env.cpu_mbec for w in share}) == 1 for share in found)
    first = [share[0].load for share in found[:4]]
    # What is long goes first: the levels that offer L1 the control, and the CPU that wants a boot of its own.
    assert {load.level for load in first if load.env.cpu_mbec} == {16, 17, 18}
    assert sum(not load.env.cpu_mbec for load in first) == 1


def test_no_host_boots_again_behind_the_other_cpu() -> None:
    found = shares(list(plan(regress(), [18], [ON])), NAMED)
    assert [share[0].load.env.cpu_mbec for share in found] == [True] * (len(found) - 1) + [False]


def test_what_calls_its_host_is_expected_to_take_longer_and_goes_first() -> None:
    works = list(plan(regress(), [18], [ON]))
    ept0 = next(work for work in works if work.load.env.name == "ept0")
    calling = sum(isinstance(v, ProgramVector) and v.calls_host for vs in ept0.batches.values() for v in vs)
    assert calling > 0
    assert expected(ept0, NAMED) == ept0.size + shards.START * len(ept0.batches) + shards.CALL * calling
    first = shares(works, NAMED)[0]
    vectors = [v for work in first for batch in work.batches.values() for v in batch]
    assert sum(isinstance(v, ProgramVector) and v.calls_host for v in vectors) > calling


def test_few_levels_go_to_all_hosts() -> None:
    works = list(plan(core(), [18], [UNSET, OFF, ON]))
    assert len(shares(works, NAMED)) >= 2 * NAMED.jobs
    (only,) = shares(works[:1], NAMED)
    assert only == works[:1]
    assert shares([], NAMED) == []


def test_one_host_is_given_no_shards() -> None:
    work = longest()
    assert shares([work], Options(jobs=1)) == [[work]]


def test_the_shards_of_a_load_are_about_as_long_as_each_other() -> None:
    work = longest()
    found = [share[0] for share in shares([work], Options(jobs=3))]
    assert len(found) == 6
    lengths = [expected(piece, Options()) for piece in found]
    assert max(lengths) < 1.5 * min(lengths)


def test_a_shard_is_worth_its_start() -> None:
    work = longest()
    found = [share[0] for share in shares([work], Options(jobs=64))]
    assert 1 < len(found) <= expected(work, Options()) / shards.LEAST + 1


@pytest.mark.parametrize("count", [2, 3, 7, 40])
def test_each_vector_is_in_one_shard_in_the_order_of_the_load(count: int) -> None:
    work = longest()
    pieces = shards.cut(work, count)
    assert 1 < len(pieces) <= count
    whole = questions(work)
    for name, vectors in whole.items():
        there = [v for piece in pieces for v in questions(piece).get(name, [])]
        assert [v.id for v in there] == [v.id for v in vectors]


def test_what_l1_dies_of_is_sampled_as_if_the_load_were_whole() -> None:
    work = longest()
    deadly = Voices(cpus.emulated).deadly(work.load)
    assert deadly is not None
    pieces = shards.cut(work, 5, deadly)
    assert len(pieces) == 5
    spared: Counter[str] = Counter()
    for piece in pieces:
        for machine, vectors in piece.batches.items():
            spared.update(vectors[i].id for i in sampled(machine, vectors, deadly)[1])
    whole = [v[i].id for machine, v in work.batches.items() for i in sampled(machine, v, deadly)[1]]
    assert spared == Counter(whole) and whole


def answered(work: Work, cpu: Cpu | None = None, **facts: object) -> Done:
    """Every vector of ``work`` answered by its own id."""
    parts = {
        name: Part(asked, Seen([Outcome(Kind.DONE, note=v.id) for v in asked], cpu, dict(facts)), 1.0)
        for name, asked in questions(work).items()
    }
    return Done(work.load, parts)


def test_shards_in_any_order_make_the_whole() -> None:
    work = longest()
    pieces = [answered(piece, counters={"exits": 2}, l1_seconds=0.5, warnings=["w"]) for piece in shards.cut(work, 4)]
    whole = merged(work, list(reversed(pieces)))
    for name, vectors in questions(work).items():
        part = whole.batches[name]
        assert part.vectors == vectors
        assert [outcome.note for outcome in part.seen.outcomes] == [v.id for v in vectors]
    cut = [name for name in whole.batches if sum(name in piece.batches for piece in pieces) > 1]
    assert cut
    for name in cut:
        times = sum(name in piece.batches for piece in pieces)
        facts = whole.batches[name].seen.facts
        assert facts == {"counters": {"exits": 2 * times}, "l1_seconds": 0.5 * times, "warnings": ["w"] * times}
        assert whole.batches[name].seconds == times


def test_an_answer_too_many_or_too_few_is_no_run() -> None:
    work = longest()
    pieces = [answered(piece) for piece in shards.cut(work, 3)]
    with pytest.raises(RuntimeError, match="was answered twice"):
        merged(work, [*pieces, pieces[-1]])
    with pytest.raises(RuntimeError, match="vectors were answered and 0 left out by rule"):
        merged(work, pieces[:-1])
    left_out = replace(
        pieces[-1], batches={}, collapsed={"rule": sum(len(p.vectors) for p in pieces[-1].batches.values())}
    )
    assert merged(work, [*pieces[:-1], left_out]).collapsed == left_out.collapsed


def test_hosts_that_show_l1_two_cpus_are_no_one_run() -> None:
    work = longest()
    first, *rest = shards.cut(work, 2)
    cpu = cpus.emulated()
    with pytest.raises(HostError, match="the hosts show L1 different CPUs"):
        merged(work, [answered(first, cpu), *(answered(piece, replace(cpu, maxphyaddr=52)) for piece in rest)])
