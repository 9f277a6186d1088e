from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lua.config.model import Source, Template, Var
from trio_lua.config.variables import Variables
from trio_lua.errors import ConfigError

HERE = Source("nginx.conf", 7)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        ("plain", ("plain",)),
        ("$uri", (Var("uri"),)),
        ("a${URI}b$Args-c", ("a", Var("uri"), "b", Var("args"), "-c")),
        ("$1$23", (Var("1"), Var("2"), "3")),
        ("${uri}_x$http_x_y.", (Var("uri"), "_x", Var("http_x_y"), ".")),
    ],
)
def test_templates(text: str, parts: tuple[object, ...]) -> None:
    assert Variables().template(text, HERE) == Template(text, parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$", "invalid variable name in nginx.conf:7"),
        ("a$", "invalid variable name in nginx.conf:7"),
        ("$-", "invalid variable name in nginx.conf:7"),
        ("${", "invalid variable name in nginx.conf:7"),
        ("${}", "invalid variable name in nginx.conf:7"),
        ("${a", 'the closing bracket in "a" variable is missing in nginx.conf:7'),
        ("${a-b}", 'the closing bracket in "a" variable is missing in nginx.conf:7'),
        ("${-", 'the closing bracket in "" variable is missing in nginx.conf:7'),
    ],
)
def test_broken_templates(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Variables().template(text, HERE)
    assert str(caught.value) == message


@given(
    st.lists(
        st.text(st.characters(exclude_characters="$"))
        | st.from_regex(r"[a-z_]{1,8}", fullmatch=True).map(Var)
    )
)
def test_a_template_is_made_of_its_parts(parts: list[str | Var]) -> None:
    text = "".join(f"${{{part.name}}}" if isinstance(part, Var) else part for part in parts)
    template = Variables().template(text, HERE)
    shown = "".join(f"${{{p.name}}}" if isinstance(p, Var) else p for p in template.parts)
    assert shown == text
    assert [p for p in template.parts if isinstance(p, Var)] == [
        p for p in parts if isinstance(p, Var)
    ]


def test_every_variable_must_come_from_somewhere() -> None:
    variables = Variables()
    variables.template("$uri$arg_x$HTTP_foo$cookie_a$sent_http_b$mine$theirs$my_family$1", HERE)
    with pytest.raises(ConfigError, match=r'unknown "mine" variable in nginx.conf:7'):
        variables.check()
    variables.declare("Mine", HERE)
    variables.provide("theirs")
    variables.provide("my_", prefix=True)
    variables.check()
    assert variables.declared == {"mine"}


def test_named_groups_are_variables() -> None:
    variables = Variables()
    variables.declare_groups(r"(?<Year>\d+)-(?P<month>\d+)-(?'day'\d+)(?<!x)(?<=y)")
    assert variables.groups == {"year", "month", "day"}


@pytest.mark.parametrize("name", ["uri", "HOST", "http_host", "request_uri"])
def test_what_nginx_computes_cannot_be_set(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Variables().declare(name, HERE)
    assert str(caught.value) == f'the duplicate "{name}" variable in nginx.conf:7'


@pytest.mark.parametrize("name", ["args", "limit_rate", "http_anything", "arg_x", "own"])
def test_what_can_be_set(name: str) -> None:
    assert Variables().declare(name, HERE) == name


def test_an_empty_name() -> None:
    with pytest.raises(ConfigError, match=r'invalid variable name "\$" in nginx.conf:7'):
        Variables().declare("", HERE)
