"""The generated pages, and the annotations they are made from, say what the code says."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from doc_pages import DOCS, ROOT
from test_layers import LAYERS

import trio_lua
from trio_lua.cli.check import syntax_checker


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_pages_are_up_to_date(reference: ModuleType) -> None:
    for path, text in reference.pages().items():
        assert path.read_text() == text, f"run python docs/make_reference.py: {path} is old"


def test_annotations_name_what_there_is(reference: ModuleType) -> None:
    live, known = reference.LiveNames(), reference.annotations()
    assert set(live.kinds) == known.keys() - {"ngx"}, "see trio_lua/lua/meta/ngx.lua"
    for name, number in live.numbers.items():
        assert int(known[name].value) == number, name
    for name, annotation in known.items():
        assert annotation.function == (live.kinds.get(name) == "function"), name
        assert annotation.text or name in live.numbers, f"{name} has no description"


def test_annotations_are_lua(reference: ModuleType) -> None:
    check = syntax_checker()
    for path in reference.META.glob("*.lua"):
        assert check(path.read_bytes()) is None, path


def test_python_names_are_documented() -> None:
    page = (DOCS / "reference" / "python-api.md").read_text()
    for name in trio_lua.__all__:
        assert f"`{name}" in page or f"### {name}\n" in page, name


def test_layers_are_those_of_the_code() -> None:
    page = (DOCS / "explanation" / "design.md").read_text()
    shown = {
        name: int(number)
        for number, names in re.findall(r"^\| (\d) \| (.*) \|$", page, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert shown == LAYERS


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(
        r": ([\w/-]+\.md)$", (ROOT / ".ci" / "mkdocs.yml").read_text(), re.MULTILINE
    )
    assert sorted(listed) == sorted(str(p.relative_to(DOCS)) for p in Path(DOCS).rglob("*.md"))


def test_every_function_of_the_module_trio_has_an_example() -> None:
    source = (ROOT / "trio_lua" / "lua" / "lualib" / "trio.lua").read_text()
    page = (DOCS / "reference" / "trio-module.md").read_text()
    examples = "".join(re.findall(r"<!-- run -->\n```lua\n(.*?)```", page, re.DOTALL))
    names = [*re.findall(r"^function (trio\.\w+)", source, re.MULTILINE)]
    names += [*re.findall(r"^function \w+_methods:(\w+)\(", source, re.MULTILINE), "with"]
    missing = {name for name in names if not re.search(rf"{re.escape(name)}\b", examples)}
    # what with() calls
    assert missing == {"release_for"}
