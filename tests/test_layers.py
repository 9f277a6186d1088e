"""Imports go one way: from a folder to those of lower layers."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "trio_lua"

LAYERS = {
    "about": 0,
    "errors": 0,
    "config": 1,
    "http": 1,
    "log": 1,
    "lua": 1,
    "ipc": 2,
    "net": 2,
    "request": 2,
    "shm": 2,
    "threads": 2,
    "api": 3,
    "debug": 4,
    "last_words": 4,
    "phases": 4,
    "modules": 5,
    "server": 6,
    "process": 7,
    "cli": 8,
    "testing": 8,
}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements but those that only type checkers see."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.If) and "TYPE_CHECKING" in ast.unparse(inner.test):
            continue
        if isinstance(inner, ast.stmt | ast.excepthandler | ast.match_case):
            yield inner
            yield from statements(inner)


@functools.cache
def imports(path: Path) -> list[tuple[str, int]]:
    found = []
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            found.append((node.module, node.lineno))
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    own = part_of(path)
    if own in ("__init__", "__main__"):
        return
    for name, line in imports(path):
        parts = name.split(".")
        if parts[0] != "trio_lua" or len(parts) < 2 or parts[1] not in LAYERS:
            continue
        other = parts[1]
        assert other == own or LAYERS[other] < LAYERS[own], f"{path}:{line} imports {name}"


def test_every_folder_has_a_layer() -> None:
    for path in modules():
        assert part_of(path) in {*LAYERS, "__init__", "__main__"}, path


def test_lupa_is_imported_in_one_place() -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        if any(name.split(".")[0] == "lupa" for name, _ in imports(path))
    }
    assert users == {"lua/vm.py"}


def test_trio_is_imported_from_layer_two_up() -> None:
    for path in modules():
        own = part_of(path)
        if LAYERS.get(own, 9) >= 2 or path.name == "driver.py":
            continue
        assert not any(name.split(".")[0] == "trio" for name, _ in imports(path)), path
