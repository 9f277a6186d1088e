"""Coverage of Lua code. One run of pytest for all: a run is slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_lua.testing.coverage import Coverage

MODULE = """local M = {}

-- a comment
function M.sign(n)
    if n < 0 then
        return -1
    end
    for i = 1, 1000 do
        n = n + i
    end
    return 1
end

function M.never()
    local x = 1
    return x
end

return M
"""

CONF = """events {}
http {
    access_log off;
    lua_package_path "lib/?.lua;;";
    init_by_lua_block {
        require "sign"
    }
    server {
        listen 127.0.0.1:80;
        location / {
            content_by_lua_block {
                local n = tonumber(ngx.var.arg_n)
                if not n then
                    ngx.exit(400)
                end
                ngx.print(require("sign").sign(n))
            }
        }
        location /file {
            content_by_lua_file lib/handler.lua;
        }
    }
}
"""

TESTS = """
from pathlib import Path
import pytest

@pytest.fixture
def lua_conf():
    return Path("nginx.conf")

async def test_sign(lua_client):
    assert (await lua_client.get("/?n=3")).text == "1"
    assert (await lua_client.get("/file")).text == "file"

@pytest.mark.lua(package_path="lib/?.lua")
async def test_module(lua):
    assert await lua.run("return require('sign').sign(1)") == 1
"""

REPORT = """
Name             Lines   Miss  Cover  Missing
lib/handler.lua      1      0   100%
lib/sign.lua        13      3    76%  6, 15-16
lib/unused.lua       1      1     0%  1
TOTAL               15      4    73%
"""


def test_coverage(pytester: pytest.Pytester) -> None:
    path = pytester.path
    path.joinpath("lib").mkdir()
    path.joinpath("lib/sign.lua").write_text(MODULE)
    path.joinpath("lib/unused.lua").write_text("return 1\n")
    path.joinpath("lib/handler.lua").write_text("ngx.print('file')\n")
    path.joinpath("nginx.conf").write_text(CONF)
    pytester.makepyfile(TESTS)
    options = ("-p", "no:cacheprovider")
    result = pytester.runpytest_inprocess(*options, "--lua-cov", "--lua-cov-lcov=cov.info")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["*Lua coverage*", "lib/sign.lua * 76%  6, 15-16", "nginx.conf * 80%  14", "TOTAL *"]
    )
    found = path.joinpath("cov.info").read_text()
    assert "SF:lib/sign.lua\n" in found
    assert "\nDA:9,2000\n" in found
    result = pytester.runpytest_inprocess(*options, "--lua-cov=lib")
    result.stdout.fnmatch_lines(REPORT.strip().splitlines())


def test_processes_of_xdist(pytester: pytest.Pytester) -> None:
    """What they measure is in the report. One of them, since their start is slow; see also below."""
    pytest.importorskip("xdist")
    path = pytester.path
    path.joinpath("lib").mkdir()
    path.joinpath("lib/sign.lua").write_text(MODULE)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.lua(package_path="lib/?.lua")
        @pytest.mark.parametrize("code", ["sign(1)", "never()"])
        async def test_module(lua, code):
            await lua.run("return require('sign')." + code)
        """
    )
    options = ("-p", "no:cacheprovider", "-n1")
    result = pytester.runpytest_inprocess(*options, "--lua-cov", "--lua-cov-lcov=cov.info")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["lib/sign.lua     13      1    92%  6"])
    assert "\nDA:15,1\n" in path.joinpath("cov.info").read_text()


def test_what_several_processes_measure(tmp_path: Path) -> None:
    whole = Coverage(tmp_path)
    for dumped in ({"a.lua": [[1, 2], [3, 0]]}, {"a.lua": [[1, 1], [3, 4]], "b.lua": [[1, 0]]}):
        part = Coverage(tmp_path)
        part.merge(dumped)
        whole.merge(part.dump())
    assert whole.dump() == {"a.lua": [[1, 3], [3, 4]], "b.lua": [[1, 0]]}
