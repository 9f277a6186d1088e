from __future__ import annotations

import errno
import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trio_lua.config.model import Settings, TryFiles
from trio_lua.http.dates import format_http_date
from trio_lua.phases import static
from trio_lua.phases.rewrite import InternalRedirect, Redirect
from trio_lua.phases.static import Files, Found

MTIME = 784111777
LAST_MODIFIED = b"Sun, 06 Nov 1994 08:49:37 GMT"
ETAG = b'"%x-6"' % MTIME


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "html"
    for name in ("dir", "dir/sub", "empty"):
        (folder / name).mkdir(parents=True)
    for name in ("file.html", "dir/index.html", "dir/other", "none"):
        (folder / name).write_bytes(b"012345")
        os.utime(folder / name, (MTIME, MTIME))
    (folder / "nothing").write_bytes(b"")
    return folder


@pytest.fixture(scope="module", autouse=True)
def nothing_of_others() -> None:
    """What tests before these have left to the garbage collector is closed now, and not while one of these runs."""
    gc.collect()


@pytest.fixture(autouse=True)
def no_descriptor_left() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


class Site:
    """One location over a folder."""

    def __init__(self, make: Any, root: Path, path: str = "/", **fields: Any) -> None:
        self.make = make
        self.root = os.fsencode(root)
        alias = fields.pop("alias", None)
        tried = fields.pop("try_files", None)
        if alias is not None:
            fields["alias"] = make.template(alias)
        if tried is not None:
            *names, last = tried
            code = int(last[1:]) if last.startswith("=") else None
            fields["try_files"] = TryFiles(
                tuple(map(make.template, names)),
                None if code is not None else make.template(last),
                code,
            )
        outer = {"alias", "try_files"} & set(fields)
        kept = {name: fields.pop(name) for name in outer}
        if "index" in fields:
            fields["index"] = tuple(map(make.template, fields["index"]))
        fields["root"] = make.template(str(fields.get("root", root)))
        self.location = make.location(path, settings=Settings(**fields), **kept)
        self.files = Files(self.location, f"{root.parent}/")

    async def serve(self, target: bytes = b"/", **fields: Any) -> tuple[Any, Any]:
        names = ("status", "is_main", "rewritten", "below_alias")
        options = {name: fields.pop(name) for name in names if name in fields}
        exchange = self.make.exchange(target, **fields)
        return await static.serve(exchange, self.files, **options), exchange

    async def try_files(self, target: bytes = b"/", **fields: Any) -> tuple[Any, Any]:
        options = {name: fields.pop(name) for name in ("rewritten",) if name in fields}
        exchange = self.make.exchange(target, **fields)
        return await static.try_files(exchange, self.files, **options), exchange


# ------------------------------------------------------------------------------- whole files


async def test_file(make: Any, root: Path) -> None:
    result, exchange = await Site(make, root).serve(b"/file.html?x")
    assert result is None
    assert exchange.status == 200
    assert exchange.body == b"012345"
    assert exchange.ended
    assert exchange.response_headers == {
        b"Content-Type": b"text/html",
        b"Content-Length": b"6",
        b"Last-Modified": LAST_MODIFIED,
        b"ETag": ETAG,
        b"Accept-Ranges": b"bytes",
    }
    assert exchange.logged == []


async def test_empty_file(make: Any, root: Path) -> None:
    result, exchange = await Site(make, root).serve(b"/nothing")
    assert (result, exchange.body, exchange.ended) == (None, b"", True)
    assert exchange.response_headers[b"Content-Length"] == b"0"


async def test_head_reads_nothing(make: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pread", None)
    result, exchange = await Site(make, root).serve(b"/file.html", method=b"HEAD")
    assert (result, exchange.body, exchange.ended) == (None, b"", True)
    assert exchange.response_headers[b"Content-Length"] == b"6"


async def test_type_by_path(make: Any, root: Path) -> None:
    (root / "a.X").write_bytes(b"x")
    site = Site(make, root, types={"x": "a/b"}, default_type="c/d")
    _, exchange = await site.serve(b"/a.X")
    assert exchange.response_headers[b"Content-Type"] == b"a/b"
    _, exchange = await site.serve(b"/none")
    assert exchange.response_headers[b"Content-Type"] == b"c/d"
    _, exchange = await Site(make, root, default_type="").serve(b"/none")
    assert b"Content-Type" not in exchange.response_headers


async def test_no_etag_and_no_ranges(make: Any, root: Path) -> None:
    site = Site(make, root, etag=False, max_ranges=0)
    _, exchange = await site.serve(b"/none", headers={b"range": b"bytes=0-1"})
    assert (exchange.status, exchange.body) == (200, b"012345")
    assert b"ETag" not in exchange.response_headers
    assert b"Accept-Ranges" not in exchange.response_headers


async def test_large_file_goes_out_in_pieces(make: Any, root: Path) -> None:
    data = os.urandom(65536 * 40 + 17)
    (root / "large").write_bytes(data)
    result, exchange = await Site(make, root).serve(b"/large")
    assert result is None
    assert exchange.body == data
    assert [len(piece) for piece in exchange.pieces] == [65536] * 40 + [17]


async def test_file_that_shrinks(make: Any, root: Path) -> None:
    path = root / "large"
    path.write_bytes(bytes(65536 * 3))

    class Shrinking(make.exchange):  # type: ignore[misc]
        async def send(self, data: bytes, *, last: bool = False) -> None:
            os.truncate(path, 65536 + 5)
            await super().send(data, last=last)

    exchange = Shrinking(b"/large")
    assert await static.serve(exchange, Site(make, root).files) == 500
    assert exchange.header_sent
    assert not exchange.ended
    message = b'pread() read only 5 of 65536 from "%b"' % os.fsencode(path)
    assert exchange.logged == [(2, message)]


async def test_file_that_cannot_be_read(
    make: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> bytes:
        raise OSError(errno.EIO, "x")

    monkeypatch.setattr(os, "pread", fail)
    result, exchange = await Site(make, root).serve(b"/none")
    assert result == 500
    assert exchange.logged == [
        (3, b'pread() "%b/none" failed (5: Input/output error)' % os.fsencode(root))
    ]


async def test_client_that_leaves(make: Any, root: Path) -> None:
    class Leaving(make.exchange):  # type: ignore[misc]
        async def send(self, data: bytes, *, last: bool = False) -> None:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        await static.serve(Leaving(b"/none"), Site(make, root).files)


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("target", [b"/none", b"/dir", b"/dir/", b"/missing"])
async def test_other_methods(make: Any, root: Path, target: bytes) -> None:
    result, exchange = await Site(make, root).serve(target, method=b"PUT")
    assert result == 405
    assert exchange.logged == []


async def test_post(make: Any, root: Path) -> None:
    site = Site(make, root)
    assert (await site.serve(b"/none", method=b"POST"))[0] == 405
    assert (await site.serve(b"/missing", method=b"POST"))[0] == 404
    assert (await site.serve(b"/dir", method=b"POST"))[0] == Redirect(301, b"/dir/")
    assert (await site.serve(b"/dir/", method=b"POST"))[0] == InternalRedirect(
        b"/dir/index.html", None
    )


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (b"/missing", b"2: No such file or directory"),
        (b"/none/x", b"20: Not a directory"),
        (b"/" + b"x" * 300, b"36: File name too long"),
    ],
)
async def test_not_found(make: Any, root: Path, target: bytes, reason: bytes) -> None:
    result, exchange = await Site(make, root).serve(target)
    assert result == 404
    message = b'open() "%b%b" failed (%b)' % (os.fsencode(root), target, reason)
    assert exchange.logged == [(4, message)]
    result, exchange = await Site(make, root, log_not_found=False).serve(target)
    assert (result, exchange.logged) == (404, [])


@pytest.mark.parametrize(
    ("number", "status", "level", "reason"),
    [
        (errno.EACCES, 403, 4, b"13: Permission denied"),
        (errno.ELOOP, 403, 4, b"40: Too many levels of symbolic links"),
        (errno.EMFILE, 500, 3, b"24: Too many open files"),
    ],
)
async def test_open_errors(
    make: Any,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    status: int,
    level: int,
    reason: bytes,
) -> None:
    def fail(*args: object) -> int:
        raise OSError(number, "x")

    monkeypatch.setattr(os, "open", fail)
    result, exchange = await Site(make, root, log_not_found=False).serve(b"/none")
    assert result == status
    message = b'open() "%b/none" failed (%b)' % (os.fsencode(root), reason)
    assert exchange.logged == [(level, message)]


async def test_pipe_is_not_waited_for(make: Any, root: Path) -> None:
    os.mkfifo(root / "pipe")
    result, exchange = await Site(make, root).serve(b"/pipe")
    assert result == 404
    assert exchange.logged == [(3, b'"%b/pipe" is not a regular file' % os.fsencode(root))]


async def test_socket(make: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    result, exchange = await Site(make, root).serve(b"/socket")
    assert result == 500
    assert b"No such device or address" in exchange.logged[0][1]


async def test_nul_ends_a_path(make: Any, root: Path) -> None:
    result, exchange = await Site(make, root).serve(uri=b"/none\0.txt")
    assert (result, exchange.body) == (None, b"012345")


async def test_folder_without_slash(make: Any, root: Path) -> None:
    (root / "a b?").mkdir()
    site = Site(make, root)
    assert (await site.serve(b"/dir"))[0] == Redirect(301, b"/dir/")
    assert (await site.serve(b"/dir?x=1"))[0] == Redirect(301, b"/dir/?x=1")
    assert (await site.serve(uri=b"/a b?"))[0] == Redirect(301, b"/a%20b%3F/")


# ------------------------------------------------------------------------------- index


async def test_index(make: Any, root: Path) -> None:
    result, exchange = await Site(make, root).serve(b"/dir/?x=1")
    assert result == InternalRedirect(b"/dir/index.html", b"x=1")
    assert exchange.logged == []


async def test_index_names_in_order(make: Any, root: Path) -> None:
    site = Site(make, root, index=["missing", "$name", "index.html"])
    result, _ = await site.serve(b"/dir/", variables={"name": b"other"})
    assert result == InternalRedirect(b"/dir/other", None)
    result, _ = await site.serve(b"/dir/", variables={"name": b"absent"})
    assert result == InternalRedirect(b"/dir/index.html", None)


async def test_absolute_index(make: Any, root: Path) -> None:
    site = Site(make, root, index=["index.html", "/file.html"])
    assert (await site.serve(b"/empty/"))[0] == InternalRedirect(b"/file.html", None)
    assert (await site.serve(b"/dir/"))[0] == InternalRedirect(b"/dir/index.html", None)


async def test_folder_without_index(make: Any, root: Path) -> None:
    result, exchange = await Site(make, root).serve(b"/empty/")
    assert result == 403
    message = b'directory index of "%b/empty/" is forbidden' % os.fsencode(root)
    assert exchange.logged == [(4, message)]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (b"/missing/", b"2: No such file or directory"),
        (b"/none/", b"20: Not a directory"),
    ],
)
async def test_index_of_no_folder(make: Any, root: Path, target: bytes, reason: bytes) -> None:
    result, exchange = await Site(make, root).serve(target)
    assert result == 404
    message = b'"%b%bindex.html" is not found (%b)' % (os.fsencode(root), target, reason)
    assert exchange.logged == [(4, message)]
    result, exchange = await Site(make, root, log_not_found=False).serve(target)
    assert (result, exchange.logged) == (404, [])


@pytest.mark.parametrize(
    ("index_error", "folder_error", "status", "logged"),
    [
        (errno.EACCES, None, 403, (4, b'"%b" is forbidden (13: Permission denied)')),
        (errno.ELOOP, None, 403, None),
        (errno.EIO, None, 500, (3, b'stat() "%b" failed (5: Input/output error)')),
        (errno.ENOENT, errno.ELOOP, 403, None),
        (errno.ENOENT, errno.EIO, 500, (3, b'stat() "%b" failed (5: Input/output error)')),
        (errno.ENOENT, errno.EACCES, 403, (4, b'directory index of "%b" is forbidden')),
    ],
)
async def test_index_errors(
    make: Any,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    index_error: int,
    folder_error: int | None,
    status: int,
    logged: tuple[int, bytes] | None,
) -> None:
    real_stat = os.stat

    def fail(path: Any, **options: Any) -> os.stat_result:
        number = index_error if path.endswith(b"index.html") else folder_error
        if number is not None:
            raise OSError(number, "x")
        return real_stat(path, **options)

    site = Site(make, root)
    exchange = make.exchange(b"/dir/")
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", fail)
        result = await static.serve(exchange, site.files)
    assert result == status
    folder = os.fsencode(root) + b"/dir"
    about = {None: folder + b"/index.html", errno.EIO: folder, errno.EACCES: folder + b"/"}
    if logged is None:
        assert exchange.logged == []
    else:
        level, text = logged
        assert exchange.logged == [(level, text % about.get(folder_error, folder))]


async def test_folder_that_became_a_file(
    make: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(make, root)
    exchange = make.exchange(b"/dir/")
    plain = os.stat(root / "none")

    def odd(path: Any) -> os.stat_result:
        if path.endswith(b"index.html"):
            raise FileNotFoundError(errno.ENOENT, "x")
        return plain

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", odd)
        result = await static.serve(exchange, site.files)
    assert result == 500
    message = b'"%b/dir/index.html" is not a directory' % os.fsencode(root)
    assert exchange.logged == [(2, message)]


# ------------------------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({b"if-modified-since": LAST_MODIFIED}, 304),
        ({b"if-modified-since": format_http_date(MTIME + 1)}, 200),
        ({b"if-none-match": ETAG}, 304),
        ({b"if-none-match": b"W/" + ETAG}, 304),
        ({b"if-none-match": b'"x"'}, 200),
        ({b"if-none-match": b'"x"', b"if-modified-since": LAST_MODIFIED}, 200),
        ({b"if-unmodified-since": LAST_MODIFIED}, 200),
        ({b"if-unmodified-since": format_http_date(MTIME - 1)}, 412),
        ({b"if-match": b"*"}, 200),
        ({b"if-match": b'"x"'}, 412),
        ({b"if-match": b'"x"', b"range": b"bytes=0-1"}, 412),
        ({b"if-none-match": ETAG, b"range": b"bytes=0-1"}, 304),
    ],
)
async def test_conditions(make: Any, root: Path, headers: dict[bytes, bytes], status: int) -> None:
    result, exchange = await Site(make, root).serve(b"/none", headers=headers)
    if status == 412:
        assert result == 412
        assert not exchange.header_sent
        return
    assert result is None
    assert exchange.status == status
    assert exchange.ended
    if status == 304:
        assert exchange.body == b""
        assert exchange.response_headers == {b"Last-Modified": LAST_MODIFIED, b"ETag": ETAG}


async def test_conditions_are_for_plain_answers_only(make: Any, root: Path) -> None:
    headers = {b"if-none-match": ETAG, b"range": b"bytes=0-1"}
    site = Site(make, root)
    _, exchange = await site.serve(b"/none", headers=headers, is_main=False)
    assert (exchange.status, exchange.body) == (200, b"012345")
    assert b"Accept-Ranges" not in exchange.response_headers
    _, exchange = await site.serve(b"/none", headers=headers, status=404)
    assert (exchange.status, exchange.body) == (404, b"012345")
    assert exchange.response_headers == {
        b"Content-Type": b"text/plain",
        b"Content-Length": b"6",
        b"ETag": ETAG,
    }


async def test_if_modified_since_before(make: Any, root: Path) -> None:
    headers = {b"if-modified-since": format_http_date(MTIME + 1)}
    _, exchange = await Site(make, root, if_modified_since="before").serve(
        b"/none", headers=headers
    )
    assert exchange.status == 304


# ------------------------------------------------------------------------------- ranges


@pytest.mark.parametrize(
    ("value", "content_range", "body"),
    [
        (b"bytes=0-0", b"bytes 0-0/6", b"0"),
        (b"bytes=2-", b"bytes 2-5/6", b"2345"),
        (b"bytes=-2", b"bytes 4-5/6", b"45"),
        (b"bytes=4-99", b"bytes 4-5/6", b"45"),
    ],
)
async def test_single_range(
    make: Any, root: Path, value: bytes, content_range: bytes, body: bytes
) -> None:
    result, exchange = await Site(make, root).serve(b"/none", headers={b"range": value})
    assert (result, exchange.status, exchange.body) == (None, 206, body)
    assert exchange.response_headers == {
        b"Content-Type": b"text/plain",
        b"Content-Length": b"%d" % len(body),
        b"Content-Range": content_range,
        b"Last-Modified": LAST_MODIFIED,
        b"ETag": ETAG,
    }


async def test_several_ranges(make: Any, root: Path) -> None:
    headers = {b"range": b"bytes=0-1,4-"}
    result, exchange = await Site(make, root).serve(b"/none", headers=headers)
    assert (result, exchange.status) == (None, 206)
    kind, _, boundary = exchange.response_headers[b"Content-Type"].partition(b"; boundary=")
    assert kind == b"multipart/byteranges"
    part = b"\r\n--%b\r\nContent-Type: text/plain\r\nContent-Range: bytes %b/6\r\n\r\n%b"
    assert exchange.body == (
        part % (boundary, b"0-1", b"01")
        + part % (boundary, b"4-5", b"45")
        + b"\r\n--%b--\r\n" % boundary
    )
    assert exchange.response_headers[b"Content-Length"] == b"%d" % len(exchange.body)
    assert b"Content-Range" not in exchange.response_headers


async def test_range_beyond_the_end(make: Any, root: Path) -> None:
    result, exchange = await Site(make, root).serve(b"/none", headers={b"range": b"bytes=6-"})
    assert result == 416
    assert exchange.response_headers == {b"Content-Range": b"bytes */6"}


@pytest.mark.parametrize(
    ("if_range", "status"), [(ETAG, 206), (b'"x"', 200), (LAST_MODIFIED, 206), (b"x", 200)]
)
async def test_if_range(make: Any, root: Path, if_range: bytes, status: int) -> None:
    headers = {b"range": b"bytes=0-1", b"if-range": if_range}
    _, exchange = await Site(make, root).serve(b"/none", headers=headers)
    assert exchange.status == status


async def test_ranges_of_a_large_file(make: Any, root: Path) -> None:
    data = os.urandom(65536 * 4)
    (root / "large").write_bytes(data)
    headers = {b"range": b"bytes=100-200000"}
    _, exchange = await Site(make, root).serve(b"/large", headers=headers)
    assert exchange.body == data[100:200001]


async def test_head_of_a_range(make: Any, root: Path) -> None:
    headers = {b"range": b"bytes=0-1"}
    _, exchange = await Site(make, root).serve(b"/none", method=b"HEAD", headers=headers)
    assert (exchange.status, exchange.body) == (206, b"")
    assert exchange.response_headers[b"Content-Length"] == b"2"


# ------------------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("html", b"/prefix/html/x"),
        ("html/", b"/prefix/html/x"),
        ("/abs", b"/abs/x"),
        ("/abs/", b"/abs/x"),
        ("/", b"/x"),
        ("", b"/prefix//x"),
        ("$root", b"/prefix/r/x"),
        ("/a$root/", b"/ar/x"),
    ],
)
def test_root(make: Any, written: str, expected: bytes) -> None:
    location = make.location("/", settings=Settings(root=make.template(written)))
    exchange = make.exchange(b"/x", variables={"root": b"r"})
    assert Files(location, "/prefix/").path(exchange) == expected


@pytest.mark.parametrize(
    ("path", "alias", "uri", "expected"),
    [
        ("/a/", "/files/", b"/a/x/y", b"/files/x/y"),
        ("/a", "/files", b"/a/x", b"/files/x"),
        ("= /a", "/file", b"/a", b"/file"),
        ("^~ /a/", "rel/", b"/a/x", b"/prefix/rel/x"),
        ("/a/", "/f/$name/", b"/a/x", b"/f/n/x"),
        ("~ ^/a/(.*)$", "/f/$1.txt", b"/a/x", b"/f/x.txt"),
        ("~ ^/a/", "/f", b"/a/x", b"/f"),
    ],
)
def test_alias(make: Any, path: str, alias: str, uri: bytes, expected: bytes) -> None:
    location = make.location(path, alias=make.template(alias))
    exchange = make.exchange(uri, variables={"name": b"n"})
    if path.startswith("~"):
        exchange.match(location.path, uri)
    assert Files(location, "/prefix/").path(exchange) == expected


async def test_alias_after_rewrite(make: Any, root: Path) -> None:
    site = Site(make, root, "/a/", alias=f"{root}/", try_files=["$uri", "=404"])
    for call in (site.serve, site.try_files):
        result, exchange = await call(b"/a/none", rewritten=True)
        assert result == 500
        text = b'"alias" cannot be used in location "/a/" where URI was rewritten'
        assert exchange.logged == [(2, text)]
    assert (await Site(make, root).serve(b"/none", rewritten=True))[0] is None


def test_alias_is_inherited(make: Any) -> None:
    alias = make.template("/files/")
    outer = make.location("/a/", alias=alias)
    parent = Files(outer, "/prefix/")
    same = make.location("/a/b/", settings=Settings(root=outer.settings.root))
    handed_down = make.location("/a/b/", alias=alias)
    other_root = make.location("/a/b/", settings=Settings(root=make.template("/other")))
    other_alias = make.location("/a/b/", alias=make.template("/other/"))
    exchange = make.exchange(b"/a/b/c")
    assert Files(same, "/prefix/", parent).path(exchange) == b"/files/b/c"
    assert Files(handed_down, "/prefix/", parent).path(exchange) == b"/files/b/c"
    assert Files(other_root, "/prefix/", parent).path(exchange) == b"/other/a/b/c"
    assert Files(other_alias, "/prefix/", parent).path(exchange) == b"/other/c"


def test_alias_of_a_regex_is_inherited_whole(make: Any) -> None:
    outer = make.location("~ ^/a", alias=make.template("/file"))
    parent = Files(outer, "/")
    inner = make.location("/a/b", settings=Settings(root=outer.settings.root))
    assert Files(inner, "/", parent).path(make.exchange(b"/a/b/c")) == b"/file"


# ------------------------------------------------------------------------------- try_files


@pytest.mark.parametrize(
    ("tried", "target", "expected", "uri"),
    [
        (["$uri", "=404"], b"/none", Found(), b"/none"),
        (["$uri", "=404"], b"/missing", 404, b"/missing"),
        (["$uri", "=404"], b"/dir", 404, b"/dir"),
        (["$uri/", "=404"], b"/dir", Found(), b"/dir"),
        (["$uri/", "=404"], b"/none", 404, b"/none"),
        (["$uri/", "=404"], b"/dir/", Found(), b"/dir/"),
        (["$uri", "$uri/", "/file.html", "=404"], b"/x", Found(), b"/file.html"),
        (["$uri.html", "=404"], b"/file", Found(), b"/file.html"),
        (["/", "=404"], b"/x", Found(), b""),
        (["$uri", "=200"], b"/x", 200, b"/x"),
        (["$uri", "/i?a=$args&b"], b"/x?y", InternalRedirect(b"/i", b"a=y&b"), b"/x"),
        (["$uri", "/i"], b"/x?y", InternalRedirect(b"/i", None), b"/x"),
        (["$uri", "@other"], b"/x", InternalRedirect(b"@other", None), b"/x"),
    ],
)
async def test_try_files(
    make: Any, root: Path, tried: list[str], target: bytes, expected: Any, uri: bytes
) -> None:
    result, exchange = await Site(make, root, try_files=tried).try_files(target)
    assert result == expected
    assert exchange.uri == uri
    assert exchange.logged == []


@pytest.mark.parametrize(
    ("tried", "target", "expected", "uri"),
    [
        (["$uri", "=404"], b"/a/none", Found(), b"/a/none"),
        (["$uri/", "=404"], b"/a/dir", Found(), b"/a/dir"),
        (["none", "=404"], b"/a/x", Found(), b"/a/none"),
        (["$uri", "/a/none"], b"/a/x", InternalRedirect(b"/a/none", None), b"/a/x"),
        (["$uri", "/b?$args"], b"/a/x?y", InternalRedirect(b"/b", b"y"), b"/a/x"),
        # Known of nginx: a last name with variables loses the location's path.
        (["$uri", "/a/q?$args"], b"/a/x?y", InternalRedirect(b"q", b"y"), b"/a/x"),
    ],
)
async def test_try_files_with_alias(
    make: Any, root: Path, tried: list[str], target: bytes, expected: Any, uri: bytes
) -> None:
    site = Site(make, root, "/a/", alias=f"{root}/", try_files=tried)
    result, exchange = await site.try_files(target)
    assert result == expected
    assert exchange.uri == uri
    if result == Found() and not uri.endswith(b"dir"):
        assert await static.serve(exchange, site.files) is None
        assert exchange.body == b"012345"


async def test_try_files_with_alias_of_a_regex(make: Any, root: Path) -> None:
    site = Site(make, root, "~ ^/a", alias=str(root), try_files=["/none", "/dir/", "=404"])
    result, exchange = await site.try_files(b"/abc")
    assert result == Found(below_alias=True)
    assert exchange.uri == b"/none"
    assert await static.serve(exchange, site.files, below_alias=True) is None
    assert exchange.body == b"012345"
    os.unlink(root / "none")
    result, exchange = await site.try_files(b"/abc")
    assert (result, exchange.uri) == (Found(), b"/abc")


async def test_try_files_logs_what_is_odd(make: Any, root: Path) -> None:
    (root / "loop").symlink_to("loop")
    site = Site(make, root, try_files=["/loop", "/none/x", "$uri", "=404"])
    result, exchange = await site.try_files(b"/none")
    assert result == Found()
    message = b'stat() "%b/loop" failed (40: Too many levels of symbolic links)'
    assert exchange.logged == [(3, message % os.fsencode(root))]
