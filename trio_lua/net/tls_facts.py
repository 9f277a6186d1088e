"""What is known of an encrypted connection: the ``$ssl_*`` variables."""

from __future__ import annotations

import hashlib
import math
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trio_lua.net.client_hello import ClientHello

__all__ = ["TlsFacts"]

#: As OpenSSL shortens them.
_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "street",
    "surname": "SN",
    "givenName": "GN",
    "userId": "UID",
}

_CURVES = {
    23: "prime256v1",
    24: "secp384r1",
    25: "secp521r1",
    29: "X25519",
    30: "X448",
}

_DAY = 86400

_Name = Sequence[Sequence[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """An encrypted connection after its handshake.

    Attributes:
        object: OpenSSL's side of it: an :class:`ssl.SSLObject`, or what has its methods.
        hello: What the client offered; None where somebody else has read it.
        verify: ``$ssl_client_verify``.
    """

    object: Any
    hello: ClientHello | None = None
    verify: str = "NONE"

    def variable(self, name: str, now: float) -> bytes | None:
        """The value of ``$ssl_...``; None when there is none.

        Args:
            name: Without ``ssl_``.
            now: Seconds since the epoch.
        """
        if name == "client_v_remain":
            return self._days_left(now)
        getter = _GETTERS.get(name)
        value = None if getter is None else getter(self)
        return None if value is None else value.encode("utf-8", "surrogateescape")

    def _server_name(self) -> str | None:
        name = None if self.hello is None else self.hello.server_name
        return None if name is None else name.decode("latin-1")

    def _session_id(self) -> str | None:
        session = self.object.session
        return session.id.hex() if session is not None else None

    def _ciphers(self) -> str | None:
        if self.hello is None:
            return None
        known = {one["id"] & 0xFFFF: one["name"] for one in self.object.context.get_ciphers()}
        return ":".join(known.get(number, f"0x{number:04x}") for number in self.hello.ciphers)

    def _curves(self) -> str | None:
        if self.hello is None:
            return None
        return ":".join(_CURVES.get(number, f"0x{number:04x}") for number in self.hello.groups)

    # ------------------------------------------------------ the client's certificate

    def _der(self) -> bytes | None:
        return self.object.getpeercert(binary_form=True)  # type: ignore[no-any-return]

    def _pem(self) -> str | None:
        der = self._der()
        return None if der is None else ssl.DER_cert_to_PEM_cert(der)

    def _indented(self) -> str | None:
        pem = self._pem()
        # as a header could carry it in several lines
        return None if pem is None else pem.rstrip("\n").replace("\n", "\n\t")

    def _escaped(self) -> str | None:
        from urllib.parse import quote

        pem = self._pem()
        return None if pem is None else quote(pem, safe="")

    def _fingerprint(self) -> str | None:
        der = self._der()
        return None if der is None else hashlib.sha1(der).hexdigest()

    def _certificate(self) -> Mapping[str, Any]:
        return self.object.getpeercert() or {}

    def _field(self, name: str) -> str | None:
        return self._certificate().get(name)

    def _days_left(self, now: float) -> bytes | None:
        end = self._field("notAfter")
        if end is None:
            return None
        return str(max(0, math.floor((ssl.cert_time_to_seconds(end) - now) / _DAY))).encode()

    def _name(self, field: str) -> str | None:
        name: _Name | None = self._certificate().get(field)
        return None if name is None else _rfc2253(name)

    def _legacy_name(self, field: str) -> str | None:
        name: _Name | None = self._certificate().get(field)
        if name is None:
            return None
        return "".join(f"/{_SHORT.get(kind, kind)}={text}" for part in name for kind, text in part)


def _rfc2253(name: _Name) -> str:
    return ",".join(
        "+".join(f"{_SHORT.get(kind, kind)}={_escape(text)}" for kind, text in part)
        for part in reversed(name)
    )


def _escape(text: str) -> str:
    escaped = "".join(f"\\{char}" if char in ',+"\\<>;' else char for char in text)
    if escaped[:1] in ("#", " "):
        escaped = "\\" + escaped
    if len(escaped) > 1 and escaped.endswith(" "):
        escaped = escaped[:-1] + "\\ "
    return escaped


_GETTERS: Mapping[str, Callable[[TlsFacts], str | None]] = {
    "alpn_protocol": lambda facts: facts.object.selected_alpn_protocol(),
    "cipher": lambda facts: (facts.object.cipher() or (None,))[0],
    "ciphers": TlsFacts._ciphers,
    "client_cert": TlsFacts._indented,
    "client_escaped_cert": TlsFacts._escaped,
    "client_fingerprint": TlsFacts._fingerprint,
    "client_i_dn": lambda facts: facts._name("issuer"),
    "client_i_dn_legacy": lambda facts: facts._legacy_name("issuer"),
    "client_raw_cert": TlsFacts._pem,
    "client_s_dn": lambda facts: facts._name("subject"),
    "client_s_dn_legacy": lambda facts: facts._legacy_name("subject"),
    "client_serial": lambda facts: facts._field("serialNumber"),
    "client_v_end": lambda facts: facts._field("notAfter"),
    "client_v_start": lambda facts: facts._field("notBefore"),
    "client_verify": lambda facts: facts.verify,
    "curves": TlsFacts._curves,
    "protocol": lambda facts: facts.object.version(),
    "server_name": TlsFacts._server_name,
    "session_id": TlsFacts._session_id,
    "session_reused": lambda facts: "r" if facts.object.session_reused else ".",
}
