"""The security level of a configuration file of OpenSSL."""

from __future__ import annotations

import pytest

from trio_lua.net.openssl_conf import read_level

CONF = """
openssl_conf = init   # first
[init]
ssl_conf = ssl
[ ssl ]
system_default = defaults
[defaults]
MinProtocol = TLSv1
CipherString = %s
[other]
CipherString = DEFAULT@SECLEVEL=5
"""


@pytest.mark.parametrize(
    ("text", "level"),
    [
        (CONF % "DEFAULT:@SECLEVEL=0", 0),
        (CONF % "DEFAULT@SECLEVEL=1", 1),
        (CONF % "DEFAULT", None),
        (CONF.replace("ssl_conf", "other") % "DEFAULT@SECLEVEL=1", None),
        ("", None),
        ("[\n=\n", None),
    ],
)
def test_level(text: str, level: int | None) -> None:
    assert read_level(text) == level
