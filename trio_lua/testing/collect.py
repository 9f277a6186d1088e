"""Test files that are not Python as pytest items: data blocks of Test::Nginx, and specs of Lua."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trio_lua.testing.blocks.parse import Block, NeedsPerl, TestFile, parse_file
from trio_lua.testing.blocks.run import BlockFailure, Skipped, run_block
from trio_lua.testing.clock import LuaClock
from trio_lua.testing.run import run
from trio_lua.testing.spec import PACKAGE_PATH, Spec, SpecFailure
from trio_lua.testing.stuck import Stuck

__all__ = ["BlockFile", "SpecFile", "collect"]


def collect(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """What pytest collects of a file, None for nothing."""
    if path.name.endswith("_spec.lua"):
        return SpecFile.from_parent(parent, path=path)
    if path.suffix == ".t" and b"Test::Nginx" in path.read_bytes():
        return BlockFile.from_parent(parent, path=path)
    return None


class BlockFile(pytest.File):
    """A file of data blocks."""

    def collect(self) -> Iterator[pytest.Item]:
        file = parse_file(self.path)
        for block in file.blocks:
            yield BlockItem.from_parent(self, name=block.name, file=file, block=block)


class _Item(pytest.Item):
    """A test that is no Python function."""

    @property
    def obj(self) -> Any:
        """What pytest-trio's ``trio_mode`` looks at, of every item."""
        return self.runtest

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *_: Any) -> Any:
        if isinstance(excinfo.value, (BlockFailure, SpecFailure, Stuck)):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


class BlockItem(_Item):
    """A data block."""

    def __init__(self, *, file: TestFile, block: Block, **options: Any) -> None:
        super().__init__(**options)
        self._file = file
        self._block = block

    def runtest(self) -> None:
        clock = LuaClock()
        with tempfile.TemporaryDirectory(prefix="block") as folder:
            # as Test::Nginx calls it, which blocks know
            root = Path(folder, "servroot")
            root.mkdir()
            try:
                run(run_block, self._file, self._block, root, clock, clock=clock)
            except NeedsPerl as error:
                pytest.skip(f"needs Perl: {error}")
            except Skipped as error:
                pytest.skip(str(error))

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self._block.line - 1, self._block.name


def _spec(node: pytest.Collector | pytest.Item) -> Spec:
    own = str(node.config.getini("lua_package_path"))
    return Spec(node.path, f"{own.rstrip(';')};{PACKAGE_PATH}" if own else PACKAGE_PATH)


class SpecFile(pytest.File):
    """A file of Lua specs."""

    def collect(self) -> Iterator[pytest.Item]:
        for number, (name, line) in enumerate(_spec(self).list(), 1):
            yield SpecItem.from_parent(self, name=name, number=number, line=line)


class SpecItem(_Item):
    """An ``it`` of a spec."""

    def __init__(self, *, number: int, line: int, **options: Any) -> None:
        super().__init__(**options)
        self._number = number
        self._line = line

    def runtest(self) -> None:
        clock = LuaClock()
        pending = run(_spec(self).run, self._number, clock, clock=clock)
        if pending is not None:
            pytest.skip(pending)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self._line - 1, self.name
