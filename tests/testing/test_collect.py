"""Files that are not Python as pytest items. One run of pytest for all: a run is slow."""

from __future__ import annotations

import pytest

SPEC = """
local prices = require "prices"

describe("prices", function()
    local rate

    before_each(function()
        rate = 1.2
    end)

    after_each(function()
        assert(rate == 1.2)
    end)

    describe("gross", function()
        it("adds tax", function()
            assert.are.equal(12, prices.gross(10))
            assert.same({ 12, { a = 1 } }, { prices.gross(10), { a = 1 } })
            assert.is_true(true)
            assert.is_not_nil(rate)
            assert.is_string("")
            assert.near(1, 1.01, 0.1)
            assert.matches("^h", "hello")
            assert.has_error(function() error("no") end, "no")
            assert.has_no.errors(function() end)
            assert.error_matches(function() error("bad thing") end, "thing$")
        end)

        it("knows spies", function()
            local s = spy.on(prices, "gross")
            prices.gross(1)
            assert.spy(s).was.called(1)
            assert.spy(s).was_called_with(1)
            assert.spy(s).was_not.called_with(2)
            local quiet = stub(prices, "gross").returns
            assert.is_function(quiet)
        end)

        it("waits an hour", function()
            local before = ngx.now()
            ngx.sleep(3600)
            assert.equal(3600, ngx.now() - before)
        end)

        it("fails", function()
            assert.same({ sum = 1 }, { sum = prices.gross(10) })
        end)

        it("breaks", function()
            prices.gross(nil)
        end)

        it("is not written yet")

        it("gives up", function()
            pending("later")
        end)
    end)
end)
"""

BLOCKS = r"""
use Test::Nginx::Socket::Lua;

repeat_each(2);
plan tests => repeat_each() * (blocks() * 2);
our $HtmlDir = html_dir;
run_tests();

__DATA__

=== TEST 1: plain data
--- config
    location /t {
        content_by_lua_block {
            ngx.req.read_body()
            ngx.say(ngx.req.get_body_data(), " ", ngx.var.arg_a, " ", ngx.var.http_x, " ", ngx.var.server_port)
            ngx.log(ngx.WARN, "look here")
        }
    }
--- request
POST /t?a=1
body
--- more_headers
X: y
--- response_body
body 1 y 1984
--- response_headers
Content-Type: text/plain
!X-None
--- error_log eval
qr/\[warn\] \S+: \*1 \[lua\] content_by_lua\(nginx\.conf:40\):4: look here/
--- no_error_log
[error]



=== TEST 2: literals, files, several requests
--- http_config eval: "lua_package_path '$::HtmlDir/?.lua;;';"
--- config
    location /t { content_by_lua_block { require("m").answer() } }
    location /slow { content_by_lua_block { ngx.sleep(2) ngx.print("late") } }
--- user_files
>>> m.lua
return { answer = function() ngx.say("from a file") end }
--- pipelined_requests eval
["GET /t", "GET /slow"]
--- response_body eval
["from a file\n", "la" . "te"]



=== TEST 3: an error, a socket of the server itself
--- config
    location /t {
        content_by_lua_block {
            local sock = ngx.socket.tcp()
            assert(sock:connect("127.0.0.1", $TEST_NGINX_SERVER_PORT))
            sock:send("GET /other HTTP/1.0\r\n\r\n")
            sock:receiveuntil("\r\n\r\n")()
            ngx.status = 404
            ngx.say(sock:receive("*a"))
        }
    }
    location /other { content_by_lua_block { ngx.print("other") } }
--- request
GET /t
--- error_code: 404
--- response_body_like: ^oth



=== TEST 4: not what it says
--- config
    location /t { return 200 "one"; }
--- request
GET /t
--- response_body chomp
two



=== TEST 5: more than literals
--- config
    location /t { return 200; }
--- request eval
"GET /t?" . join "&", map { $_ } 1..3



=== TEST 6: a server that suites expect, and another one in front of the block's own
--- http_config
    server {
        listen unix:$TEST_NGINX_HTML_DIR/nginx.sock;
        location / { return 418; }
    }
--- config
    lua_code_cache off;
    location /t {
        content_by_lua_block {
            local sock = ngx.socket.tcp()
            assert(sock:connect("127.0.0.1", $TEST_NGINX_MEMCACHED_PORT))
            sock:send("flush_all\r\n")
            ngx.say(sock:receive())
            sock:close()
            sock = ngx.socket.tcp()
            ngx.say(select(2, sock:connect("unix:$TEST_NGINX_HTML_DIR/none.sock")))
            sock:settimeout(100)
            ngx.say(select(2, sock:connect("127.0.0.2", 12345)))
            ngx.print("\1" .. string.rep("x", 3))
        }
    }
--- request
GET /t
--- response_body eval
"OK\nno such file or directory\ntimeout\n\1" . "x" x 3
--- error_log eval
qr/\[alert\] \S+ lua_code_cache is off/



=== TEST 7: the handler takes it for another method
--- config
    location /t {
        rewrite_by_lua_block { ngx.req.set_method(ngx.HTTP_GET) }
        content_by_lua_block { ngx.say("body") }
    }
--- request
HEAD /t
--- response_body
body



=== TEST 8: an unknown section
--- config
    location /t { return 200; }
--- request
GET /t
--- what_is_this: 1
"""

NAMES = r"""
use Test::Nginx::Socket::Lua;
use Cwd qw(cwd);

my $pwd = cwd();
$ENV{TEST_NGINX_GREETING} ||= 'hello';

our $HttpConfig = qq{
    lua_package_path "$pwd/lib/?.lua;;";
    # it's configuration; with "quotes"
};

sub read_file {
    my $infile = shift;
    open my $in, $infile
        or die "cannot open $infile for reading: $!";
    my $text = do { local $/; <$in> };
    close $in;
    $text;
}

our $Script = read_file("none.stp");
our $Code = <<'_EOC_';
    ngx.print("$HttpConfig ", require("prices").gross(10))
_EOC_
our $Whole = $ENV{TEST_NGINX_NONE} || "location /t { content_by_lua_block { $Code } }";

run_tests();

__DATA__

=== TEST 1: names
--- http_config eval: $::HttpConfig
--- config eval
$::Whole . "location /hello { return 200 $ENV{TEST_NGINX_GREETING}; }"
--- request eval
["GET /t", "GET /hello"]
--- response_body eval
['$HttpConfig 12', "hello"]



=== TEST 2: a file that is not there
--- config eval: $::Script
--- request
GET /t
"""


def test_collectors(pytester: pytest.Pytester) -> None:
    path = pytester.path
    path.joinpath("lib").mkdir()
    path.joinpath("lib/prices.lua").write_text(
        "return {\n    gross = function(net)\n        return net * 1.2\n    end,\n}\n"
    )
    path.joinpath("prices_spec.lua").write_text(SPEC)
    path.joinpath("a.t").write_text(BLOCKS)
    path.joinpath("c.t").write_text(NAMES)
    path.joinpath("b.t").write_text(
        "use Test::Nginx::Socket;\nmy $x = `date`;\nrun_tests();\n__DATA__\n=== TEST 1: x\n"
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rs", "-v")
    result.assert_outcomes(passed=9, failed=3, skipped=6)
    lines = result.stdout
    lines.fnmatch_lines(
        [
            "a.t::TEST 1: plain data PASSED*",
            "a.t::TEST 4: not what it says FAILED*",
            "b.t::TEST 1: x SKIPPED*",
            "prices_spec.lua::prices gross adds tax PASSED*",
        ]
    )
    lines.fnmatch_lines(["body: 'one', expected 'two'"])
    lines.fnmatch_lines(
        [
            "*prices_spec.lua:*: expected to be the same",
            "expected: { sum = 1 }",
            "actual: *{ sum = 12 }",
            "* | assert.same({ sum = 1 }, { sum = prices.gross(10) })",
        ]
    )
    lines.fnmatch_lines(
        ["./lib/prices.lua:3: attempt to perform arithmetic*", "* 3 | return net * 1.2"]
    )
    lines.fnmatch_lines_random(
        [
            '*needs Perl: join "&"*',
            "*needs Perl: my $x = `date`;*",
            "*needs Perl: $::Script*",
            "*the section what_is_this*",
            "*pending*",
            "*later*",
        ]
    )
