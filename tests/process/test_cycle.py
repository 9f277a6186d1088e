"""What a configuration in use holds open."""

from __future__ import annotations

from pathlib import Path

from trio_lua.config.model import Config, Http
from trio_lua.process.cycle import open_cycle


def test_dictionaries_stay_with_their_size(tmp_path: Path) -> None:
    def config(*dicts: tuple[str, int]) -> Config:
        return Config(http=Http(shared_dicts=dicts), prefix=f"{tmp_path}/")

    first = open_cycle(config(("a", 8192), ("b", 8192)), default_log="error.log")
    second = open_cycle(config(("a", 8192), ("b", 16384)), default_log="error.log", previous=first)
    assert second.zones["a"] is first.zones["a"]
    assert second.zones["b"] is not first.zones["b"]
    first.close(keep=second)
    second.close()
