from __future__ import annotations

import pytest

from trio_lua.process.affinity import processors


@pytest.mark.parametrize(
    ("masks", "worker", "expected"),
    [
        ((), 0, None),
        (("0001", "0010"), 0, {0}),
        (("0001", "0010"), 1, {1}),
        (("0001", "0010"), 2, {1}),
        (("0101",), 0, {0, 2}),
        (("auto",), 0, {1}),
        (("auto",), 4, {2}),
        (("auto", "1100"), 0, {2}),
        (("auto", "1100"), 1, {3}),
        (("auto", "10000"), 0, None),
    ],
)
def test_processors(masks: tuple[str, ...], worker: int, expected: set[int] | None) -> None:
    assert processors(masks, worker, available=(1, 2, 3)) == expected
