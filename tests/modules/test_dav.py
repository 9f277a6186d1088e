"""``dav_methods``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trio_lua.config.nginx import loads
from trio_lua.errors import ConfigError
from trio_lua.modules import BUNDLED

Open = Callable[..., Any]


class Files:
    """A client of the site that writes."""

    def __init__(self, site: Any) -> None:
        self._site = site

    async def send(
        self, method: str, path: str, *lines: str, body: str = ""
    ) -> tuple[int, dict[str, str]]:
        client = await self._site.connect()
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = "".join(f"{line}\r\n" for line in lines) + length
        await client.send(f"{method} {path} HTTP/1.1\r\nHost: here\r\n{head}\r\n{body}".encode())
        status, headers, _body = await client.response(method)
        return status, headers

    async def status(self, method: str, path: str, *lines: str, body: str = "") -> int:
        return (await self.send(method, path, *lines, body=body))[0]


_SITE = """
    location / { dav_methods PUT DELETE MKCOL COPY MOVE; create_full_put_path on; dav_access group:rw all:r; }
    location /plain/ { dav_methods PUT; }
    location /deep/ { dav_methods DELETE; min_delete_depth 3; }
    location /file/ { client_body_in_file_only clean; dav_methods PUT; create_full_put_path on; }
    location /lua { dav_methods PUT; content_by_lua_block { ngx.print("lua") } }
"""


async def test_put(site: Open, tmp_path: Path) -> None:
    async with site(f"root {tmp_path}; {_SITE}") as server:
        files = Files(server)
        status, headers = await files.send("PUT", "/a%20b/c.txt", body="one")
        assert (status, headers["location"]) == (201, "http://here/a%20b/c.txt")
        assert headers["content-length"] == "0"
        path = tmp_path / "a b" / "c.txt"
        assert path.read_text() == "one"
        assert path.stat().st_mode & 0o777 == 0o664
        date = "Date: Tue, 14 Nov 2023 22:13:20 GMT"
        assert await files.status("PUT", "/a%20b/c.txt", date, body="two") == 204
        assert (path.read_text(), path.stat().st_mtime) == ("two", 1700000000)
        assert await files.status("PUT", "/empty") == 201
        assert await files.status("PUT", "/file/x", body="x" * 50000) == 201
        assert len((tmp_path / "file" / "x").read_text()) == 50000
        assert await files.status("PUT", "/a%20b", body="x") == 409
        assert await files.status("PUT", "/a%20b/", body="x") == 409
        assert await files.status("PUT", "/x", "Content-Range: bytes 0-1/2", body="x") == 501
        assert await files.status("PUT", "/plain/none/x", body="x") == 500
        assert await files.status("PUT", "/lua", body="x") == 200
        assert sorted(os.listdir(tmp_path)) == ["a b", "empty", "file"]


async def test_delete_and_mkcol(site: Open, tmp_path: Path) -> None:
    async with site(f"root {tmp_path}; {_SITE}") as server:
        files = Files(server)
        status, headers = await files.send("MKCOL", "/new/")
        assert (status, headers["location"]) == (201, "http://here/new/")
        assert await files.status("MKCOL", "/new/") == 405
        assert await files.status("MKCOL", "/new") == 409
        assert await files.status("MKCOL", "/none/new/") == 409
        assert await files.status("MKCOL", "/other/", body="x") == 415
        assert await files.status("PUT", "/new/file", body="x") == 201
        assert await files.status("DELETE", "/new") == 409
        assert await files.status("DELETE", "/new/", "Depth: 0") == 400
        assert await files.status("DELETE", "/new/file", "Depth: 1") == 400
        assert await files.status("DELETE", "/new/file", "Depth: x") == 400
        assert await files.status("DELETE", "/new/file/below") == 409
        assert await files.status("DELETE", "/none") == 404
        assert await files.status("DELETE", "/new/") == 204
        assert not (tmp_path / "new").exists()
        (tmp_path / "deep" / "a").mkdir(parents=True)
        assert await files.status("DELETE", "/deep/a") == 409
        assert "insufficient URI depth:2 to DELETE" in server.log.text(4)
        assert await files.status("DELETE", "/deep/a/b") == 404


async def test_copy_and_move(site: Open, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "leaf").write_text("leaf")
    async with site(f"root {tmp_path}; {_SITE}") as server:
        status = Files(server).status
        assert await status("COPY", "/one", "Destination: /two") == 204
        assert await status("COPY", "/one", "Destination: http://here/t%77o") == 204
        assert await status("COPY", "/one", "Destination: /two", "Overwrite: F") == 412
        assert await status("MOVE", "/two", "Destination: /new/two") == 204
        assert (tmp_path / "new" / "two").read_text() == "1"
        assert not (tmp_path / "two").exists()
        assert await status("COPY", "/tree/", "Destination: /copy/") == 201
        assert await status("MOVE", "/copy/", "Destination: /new/") == 201
        assert (tmp_path / "new" / "leaf").read_text() == "leaf"
        for method, path, lines, expected in (
            ("COPY", "/one", (), 400),
            ("COPY", "/one", ("Destination: nowhere",), 400),
            ("COPY", "/one", ("Destination: http://elsewhere/x",), 400),
            ("COPY", "/one", ("Destination: /x/",), 409),
            ("COPY", "/one", ("Destination: /tree",), 409),
            ("COPY", "/one", ("Destination: /../x",), 400),
            ("COPY", "/one", ("Destination: /x", "Overwrite: maybe"), 400),
            ("COPY", "/one", ("Destination: /x", "Depth: 1"), 400),
            ("MOVE", "/one", ("Destination: /x", "Depth: 0"), 400),
            ("COPY", "/none", ("Destination: /x",), 404),
            ("COPY", "/tree", ("Destination: /x",), 400),
        ):
            assert await status(method, path, *lines) == expected, (method, path, lines)


async def test_subrequests(site: Open, tmp_path: Path) -> None:
    lua = """
        location = /t { content_by_lua_block {
            local capture = ngx.location.capture
            local res = capture("/a", { method = ngx.HTTP_PUT, body = "text" })
            ngx.print(res.status)
            ngx.req.set_header("Destination", "/b")
            ngx.print(" ", capture("/a", { method = ngx.HTTP_MOVE }).status, " ", capture("/b").body)
        } }
    """
    async with site(f"root {tmp_path}; {_SITE} {lua}") as server:
        assert await server.text("/t") == "201 204 text"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dav_methods GET;", 'invalid value "GET"'),
        ("dav_access user:x;", 'invalid value "user:x"'),
        ("dav_access nobody:r;", 'invalid value "nobody:r"'),
        ("min_delete_depth -1;", "invalid number"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loads(f"events {{}} http {{ {text} }}", modules=BUNDLED)
