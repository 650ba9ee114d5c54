"""A child that doubles numbers, refuses 0 and dies of 13: what the tests of hands have work for them."""

from __future__ import annotations

import os
from collections.abc import Callable

from harness.errors import InfraError
from harness.oracle.hands import serve


def make(setting: int) -> Callable[[int], int]:
    """``setting`` is added."""

    def answer(request: int) -> int:
        if request == 0:
            raise InfraError("0 is refused")
        if request == 13:
            print("died of 13", flush=True)
            os._exit(3)
        return 2 * request + setting

    return answer


if __name__ == "__main__":
    serve(make)
