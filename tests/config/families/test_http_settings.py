from __future__ import annotations

from collections.abc import Callable

import pytest

from trio_lua.config.model import Config

Http = Callable[[str], Config]


def test_error_pages(http: Http) -> None:
    pages = http("error_page 404 500 /x; error_page 502 =200 @y; error_page 403 494 = $uri;").http
    found = [(page.codes, page.response, page.uri.raw) for page in pages.settings.error_pages]
    assert found == [((404, 500), None, "/x"), ((502,), 200, "@y"), ((403, 494), 0, "$uri")]
    # nginx shows its own codes as 400.
    pages = http("error_page 404 494 /x;").http
    found = [(page.codes, page.response, page.uri.raw) for page in pages.settings.error_pages]
    assert found == [((494,), 400, "/x"), ((404,), None, "/x")]


def test_access_rules(http: Http) -> None:
    config = http(
        "allow 10.0.0.1; allow 2001:db8::/32; deny unix:;\ndeny 192.168.1.1/24; deny all;"
    )
    assert config.http.settings.access_rules == (
        (True, "10.0.0.1/32"),
        (True, "2001:db8::/32"),
        (False, "unix:"),
        (False, "192.168.1.0/24"),
        (False, "all"),
    )
    assert config.warnings == (
        "[warn] low address bits of 192.168.1.1/24 are meaningless in nginx.conf:3",
    )


def test_headers(http: Http) -> None:
    [first, second] = http("add_header A $uri; add_header B '' always;").http.settings.add_headers
    assert (first.name, first.value.raw, first.always) == ("A", "$uri", False)
    assert (second.name, second.value.raw, second.always) == ("B", "", True)


def test_settings_without_effect_are_checked_all_the_same(http: Http) -> None:
    config = http(
        """
        server_names_hash_bucket_size 64; types_hash_max_size 1; aio threads; directio 4m; sendfile on;
        directio_alignment 512; open_file_cache max=5 inactive=2s; open_file_cache_valid 3s;
        output_buffers 2 32k; connection_pool_size 512; send_lowat 1k; lua_malloc_trim 5;
        proxy_temp_path a; fastcgi_temp_path b; lua_sa_restart off; limit_rate_after 1k;
        """
    )
    assert config.http.settings.sendfile
    assert config.http.settings.limit_rate_after is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("error_page 200 /x;", 'value "200" must be between 300 and 599'),
        ("error_page x /x;", 'invalid value "x"'),
        ("error_page 499 /x;", 'invalid value "499"'),
        ("error_page = /x;", 'invalid value "="'),
        ("error_page 404 =x /x;", 'invalid value "=x"'),
        ("add_header A 1 never;", 'invalid parameter "never"'),
        ("keepalive_timeout 1 x;", '"keepalive_timeout" directive invalid value'),
        ("keepalive_disable opera;", 'invalid value "opera"'),
        (
            "large_client_header_buffers 4 x;",
            '"large_client_header_buffers" directive invalid value',
        ),
        (
            "large_client_header_buffers 0 8k;",
            '"large_client_header_buffers" directive invalid value',
        ),
        ("limit_rate x;", '"limit_rate" directive invalid value'),
        ("client_body_temp_path a 0;", '"client_body_temp_path" directive invalid value'),
        ("client_body_temp_path a 1 2 x;", '"client_body_temp_path" directive invalid value'),
        ("resolver valid=1s;", "no name servers defined"),
        ("resolver 127.0.0.1 valid=x;", "invalid parameter: valid=x"),
        ("resolver 127.0.0.1 ipv6=x;", "invalid parameter: ipv6=x"),
        ("resolver 127.0.0.1:x;", 'invalid port in resolver "127.0.0.1:x"'),
        ("expires x;", '"expires" directive invalid value'),
        ("expires a 1h;", '"expires" directive invalid value'),
        ("expires @25h;", '"expires" directive daily time value must be less than 24 hours'),
        (
            "expires modified @1h;",
            '"expires" directive daily time cannot be used with "modified" parameter',
        ),
        ("allow x;", 'invalid parameter "x"'),
        ("deny 10.0.0.0/255.0.0.0;", 'invalid parameter "10.0.0.0/255.0.0.0"'),
        ("aio maybe;", '"aio" directive invalid value'),
    ],
)
def test_mistakes(http: Http, refused: Callable[[Http, str], str], text: str, message: str) -> None:
    assert refused(http, text) == f"{message} in nginx.conf:2"
