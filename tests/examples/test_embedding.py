"""The example of embedding: rules that change while it runs."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
import trio.testing
from doc_pages import ROOT

FOLDER = ROOT / "examples" / "embedding"


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("embedding_program", FOLDER / "program.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))
    stat = path.stat()
    # whatever the resolution of the file system's clock is
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))


async def test_rules_change_while_it_runs(
    program: ModuleType, tmp_path: Path, autojump_clock: Any
) -> None:
    rules = tmp_path / "rules"
    shutil.copytree(FOLDER / "rules", rules)
    reports: list[str] = []
    router = program.Router(
        rules, {"order": program.order, "search": program.search}, reports.append
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(router.run)

        async def ask(target: str, method: str = "GET") -> tuple[int, Any]:
            response = await router.server.request(method, target)
            return response.status, response.json()

        assert await ask("/orders/7") == (200, {"order": 7, "state": "shipped"})
        assert await ask("/orders?q=tea") == (200, {"found": [7, 8], "text": "tea"})
        assert await ask("/orders/7", "DELETE") == (405, {"error": 405})
        assert await ask("/o/7") == (404, {"error": 404})

        # a change counts soon, and what has begun goes on
        old = router.server
        edit(rules / "20_orders.lua", "/orders/", "/o/")
        late: list[int] = []

        async def begun() -> None:
            await trio.sleep(program.INTERVAL - 0.015)  # one request took 0.01 already
            late.append((await old.request("GET", "/orders/8")).status)

        nursery.start_soon(begun)
        await trio.sleep(2 * program.INTERVAL)
        assert (reports, late) == (["new rules"], [200])
        assert (await ask("/o/7"))[0] == 200
        assert (await ask("/orders/7"))[0] == 404
        with pytest.raises(trio.ClosedResourceError):
            await old.request("GET", "/")

        # one that cannot be used changes nothing
        for mistake, words in (("iff id", "expected"), ("if id.x", "attempt to index")):
            edit(rules / "20_orders.lua", "if id", mistake)
            await trio.sleep(2 * program.INTERVAL)
            assert "the old rules stay" in reports[-1]
            assert "20_orders.lua" in reports[-1]
            assert words in reports[-1]
            assert (await ask("/o/7"))[0] == 200
            edit(rules / "20_orders.lua", mistake, "if id")
            await trio.sleep(2 * program.INTERVAL)
        assert router.metrics.statuses[200] == 6
        assert router.metrics.seconds["content"] > 0
        nursery.cancel_scope.cancel()
