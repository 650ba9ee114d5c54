"""A hand of ``kvmirror mutate`` whose every mutant wants twice the memory that a hand has."""

from __future__ import annotations

from harness.oracle.mutate import Mutant, MutantVerdict, hand


class Greedy(hand.Judge):
    """The judge takes the memory that a mutant would, and touches none of it."""

    def judge(self, mutant: Mutant, before: str = "") -> MutantVerdict:
        bytes(2 * hand.MEMORY)
        return MutantVerdict(mutant, before, "")


if __name__ == "__main__":
    hand.Judge = Greedy
    hand.main()
