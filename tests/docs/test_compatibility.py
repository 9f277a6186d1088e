"""The page about compatibility, as its script makes it."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
from doc_pages import DOCS


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("compatibility", DOCS / "make_compatibility.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_figures_and_reasons(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = [
        script.Reason("different", "a.t:2-3", "because"),
        script.Reason("later", "tag:tls", "TLS"),
    ]
    monkeypatch.setattr(script, "reasons", lambda: reasons)
    blocks = [("a.t", n) for n in range(1, 7)] + [("b.t", 1)]
    tags = dict.fromkeys(blocks, frozenset({"core"})) | {("b.t", 1): frozenset({"tls", "echo"})}
    reference = dict.fromkeys(blocks, "pass") | {("a.t", 6): "fail"}
    results = {("a.t", 1): "pass", ("a.t", 2): "fail", ("a.t", 3): "dead", ("a.t", 4): "skip"}
    text, unexplained = script.page(results, reference, tags)
    assert "**1 of 6, 16.7%**" in text
    assert (
        "| core | phases, variables, headers, arguments, output: nothing of what follows | 5 | 1 |"
        in text
    )
    assert "* **because** (2): `a.t` 2-3." in text
    assert "* **TLS** (1): `b.t` 1." in text
    assert unexplained == [("a.t", 4), ("a.t", 5)]
    assert "`a.t` 4-5." in text


def test_the_data_file_is_well_formed(script: ModuleType) -> None:
    for reason in script.reasons():
        assert reason.kind in script.KINDS, reason
        assert reason.text
        if reason.what.startswith("tag:"):
            assert reason.what[4:] in script.TAGS, reason
        else:
            assert ".t" in reason.what, reason
