"""Real servers, started at most once each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import real_servers
from real_servers import Certificates, Service


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return real_servers.make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def redis(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Service]:
    with real_servers.redis(tmp_path_factory.mktemp("redis"), certificates) as service:
        yield service


@pytest.fixture(scope="session")
def memcached(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Service]:
    with real_servers.memcached(tmp_path_factory.mktemp("memcached"), certificates) as service:
        yield service


@pytest.fixture(scope="session")
def mariadb(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Service]:
    with real_servers.mariadb(tmp_path_factory.mktemp("mariadb"), certificates) as service:
        yield service
