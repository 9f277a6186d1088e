"""The pytest plugin: fixtures for tests of Lua handlers, on top of pytest-trio.

==================== ==========================================================================
``lua_conf``         override it: the configuration (see :func:`trio_lua.testing.configuration`)
``lua_options``      override it: a dict of further arguments of :func:`trio_lua.testing.open_server`
``lua_server``       a server of ``lua_conf``, or of what ``@pytest.mark.lua(...)`` says
``make_lua_server``  ``await make_lua_server(conf, ...)``: further servers
``lua_client``       the client of ``lua_server``
``lua``              runs Lua code in a VM without a server
``lua_log``          error.log; records of level ``error`` and above fail the test unless allowed
``lua_clock``        the run's clock, which jumps over idle time
``lua_shared``       the shared dictionaries of ``lua_server`` by name
``lua_network``      what the servers can reach, in memory; without this fixture it is the real network
``lua_patch``        ``lua_patch("ngx.worker.id", "function() return 7 end")`` in ``lua_server``
==================== ==========================================================================

The marker takes what :func:`trio_lua.testing.open_server` takes: ``@pytest.mark.lua("ngx.say(1)")``,
``@pytest.mark.lua(config="location / { ... }", allow_leaks=["globals"])``.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

if TYPE_CHECKING:
    from trio_lua.shm.shared_dict import SharedDict

    # pytest loads plugins for every run: what these names stand for is loaded by the first fixture
    from trio_lua.testing import Client, LogRecords, Lua, LuaClock, LuaNetwork, LuaServer
    from trio_lua.testing.coverage import Coverage
    from trio_lua.testing.report import Report
    from trio_lua.testing.trace import Trace

__all__: list[str] = []

_COVERAGE: pytest.StashKey[Coverage] = pytest.StashKey()
_REPORTS: pytest.StashKey[list[Report]] = pytest.StashKey()
_TRACE: pytest.StashKey[Trace] = pytest.StashKey()
_FAILED: pytest.StashKey[bool] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("trio-lua")
    group.addoption(
        "--lua-cov",
        nargs="?",
        const="",
        metavar="DIR",
        help="measure which lines of Lua code run; with DIR, of all Lua files in it",
    )
    group.addoption(
        "--lua-cov-lcov", metavar="FILE", help="write what --lua-cov measures in LCOV's format"
    )
    group.addoption(
        "--lua-trace",
        action="store_true",
        help="show, of tests that fail, what their servers did and when",
    )
    group.addoption(
        "--lua-jit", choices=["on", "off"], default="on", help="LuaJIT's compiler; on by default"
    )
    parser.addini("lua_conf", "the nginx.conf that the fixture lua_server serves")
    parser.addini("lua_prefix", "where its relative paths start; the working folder by default")
    parser.addini("lua_package_path", "where modules are found first, by *_spec.lua files as well")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of pytest-xdist hands over what it has measured."""
    output = getattr(session.config, "workeroutput", None)
    coverage = session.config.stash.get(_COVERAGE, None)
    if output is not None and coverage is not None:
        output["lua_cov"] = coverage.dump()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """One of them has ended; this is the process that reports."""
    coverage = node.config.stash.get(_COVERAGE, None)
    # one that crashed has handed over nothing
    measured = getattr(node, "workeroutput", {}).get("lua_cov")
    if coverage is not None and measured is not None:
        coverage.merge(measured)


def pytest_unconfigure(config: pytest.Config) -> None:
    if config.getoption("--lua-jit") == "off":
        from trio_lua.testing.vm import set_compiler

        set_compiler(True)
    if _COVERAGE in config.stash:
        from trio_lua.testing.coverage import deactivate

        deactivate()


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    """The report of ``--lua-cov``."""
    coverage = config.stash.get(_COVERAGE, None)
    if coverage is None:
        return
    terminalreporter.section("Lua coverage")
    for line in coverage.table():
        terminalreporter.write_line(line)
    target = config.getoption("--lua-cov-lcov")
    if target:
        Path(target).write_text(coverage.lcov())
        terminalreporter.write_line(f"LCOV report in {target}")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--lua-jit") == "off":
        from trio_lua.testing.vm import set_compiler

        set_compiler(False)
    folder = config.getoption("--lua-cov")
    if folder is not None:
        from trio_lua.testing.coverage import Coverage, activate

        root = config.rootpath / folder
        coverage = config.stash[_COVERAGE] = Coverage(root, everything=bool(folder))
        activate(coverage)
    config.addinivalue_line(
        "markers", "lua(source=None, **options): what the fixture lua_server serves"
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Lua specs, and data blocks of Test::Nginx."""
    if file_path.suffix not in (".t", ".lua"):
        return None
    from trio_lua.testing.collect import collect

    return collect(file_path, parent)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Async tests that use these fixtures are Trio's, and run on the clock of ``lua_clock``."""
    for item in items:
        if "lua_clock" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.trio(run=partial(_run, item)), append=False)


def _run(
    item: Any,
    function: Callable[..., Any],
    *,
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> Any:
    from trio_lua.testing import run

    __tracebackhide__ = True
    # pytest-trio names a clock only if a fixture is one, and then it is that of lua_clock
    return run(function, clock=item.funcargs["lua_clock"], instruments=instruments)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, None]:
    """Examples of Hypothesis run like other tests; pytest-trio would give each to ``trio.run``."""
    test: Any = getattr(getattr(item, "obj", None), "hypothesis", None)
    if test is not None and "lua_clock" in getattr(item, "fixturenames", ()):
        from trio_lua.testing.properties import run_examples

        # a failure is about the last one
        begin = item.stash.setdefault(_REPORTS, []).clear
        with run_examples(test, partial(_run, item), begin):
            yield
    else:
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, None]:
    """A failed test shows what its servers have to say."""
    plain = None
    ours = "lua_clock" in getattr(item, "fixturenames", ())
    if call.excinfo is not None and ours and not item.config.getoption("fulltrace"):
        from trio_lua.testing.shorten import shorten

        plain = shorten(call.excinfo)
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        item.stash[_FAILED] = True
        if plain is not None:
            report.longrepr = plain
    trace = item.stash.get(_TRACE, None)
    if report.failed and trace is not None:
        report.sections.append(("trace", "\n".join(trace.lines)))
    reports = item.stash.get(_REPORTS, [])
    if report.failed and reports and call.excinfo is not None:
        from trio_lua.errors import LuaError
        from trio_lua.testing import Leak, Stuck

        error = call.excinfo.value
        if isinstance(error, (Leak, Stuck)):
            # the way through the kit says nothing
            report.longrepr = str(error)
        elif isinstance(error, LuaError) and "\t" in error.traceback:
            report.sections.append(("Lua traceback", reports[0].annotated(error.traceback)))
        for one in reports:
            shown = one.sections()
            # what it was stuck with is said already
            report.sections += [
                pair for pair in shown if pair[0] != "Lua threads" or not isinstance(error, Stuck)
            ]


@pytest.fixture
def lua_conf(request: pytest.FixtureRequest) -> Any:
    """The configuration that ``lua_server`` serves: override it, or set ``lua_conf`` in pytest's configuration."""
    path = request.config.getini("lua_conf")
    return request.config.rootpath / path if path else None


@pytest.fixture
def lua_options() -> dict[str, Any]:
    """Further arguments of :func:`trio_lua.testing.open_server`: override it."""
    return {}


@pytest.fixture
def lua_clock(request: pytest.FixtureRequest) -> LuaClock:
    """The run's clock: it jumps over idle time, and holds while threads work.

    A test that asks for pytest-trio's ``mock_clock`` or ``autojump_clock`` runs on that.
    """
    from trio_lua.testing import LuaClock

    mock = None
    for name in ("autojump_clock", "mock_clock"):
        if name in request.fixturenames:
            mock = request.getfixturevalue(name)
    return LuaClock(mock)


@pytest.fixture
def lua_log(request: pytest.FixtureRequest) -> Iterator[LogRecords]:
    """What the servers of the test write to error.log."""
    from trio_lua.testing import LogRecords

    log = LogRecords()
    yield log
    unexpected = log.unexpected()
    # a test that has failed shows its log
    if unexpected and not request.node.stash.get(_FAILED, False):
        lines = "\n".join(map(str, unexpected))
        pytest.fail(f"unexpected records in error.log:\n{lines}", pytrace=False)


@pytest.fixture
def lua_network(request: pytest.FixtureRequest, lua_clock: LuaClock) -> Iterator[LuaNetwork]:
    """What the servers of the test can reach; a script that is not followed fails the test."""
    from trio_lua.testing import LuaNetwork

    network = LuaNetwork(lua_clock)
    yield network
    missing = network.missing()
    # a test that has failed often did not come that far
    if missing and not request.node.stash.get(_FAILED, False):
        lines = "\n".join(missing)
        pytest.fail(f"the network was used in another way:\n{lines}", pytrace=False)


@pytest.fixture
def _lua_settings(
    request: pytest.FixtureRequest, lua_log: LogRecords, lua_clock: LuaClock
) -> dict[str, Any]:
    """What every server of the test has in common."""
    settings: dict[str, Any] = {"log": lua_log, "clock": lua_clock}
    config = request.config
    if config.getini("lua_prefix"):
        settings["prefix"] = config.rootpath / config.getini("lua_prefix")
    if config.getini("lua_package_path"):
        settings["package_path"] = config.getini("lua_package_path")
    if "lua_network" in request.fixturenames:
        settings["network"] = request.getfixturevalue("lua_network")
    return settings


def _reports(request: pytest.FixtureRequest) -> list[Report]:
    """What the failing test shows."""
    stash: pytest.Stash = request.node.stash
    return stash.setdefault(_REPORTS, [])


def _traced(request: pytest.FixtureRequest, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a server, with an observer more if there is to be a trace."""
    if not request.config.getoption("--lua-trace"):
        return settings
    from trio_lua.testing.trace import Trace

    trace = request.node.stash.setdefault(_TRACE, Trace())
    return {**settings, "observers": [*settings.get("observers", ()), trace]}


def _asked_for(request: pytest.FixtureRequest, conf: Any, options: dict[str, Any]) -> Any:
    marker = request.node.get_closest_marker("lua")
    if marker is None:
        return conf, dict(options)
    if marker.args:
        source = marker.args[0]
    else:
        source = marker.kwargs.get("source", None if "config" in marker.kwargs else conf)
    given = {name: value for name, value in marker.kwargs.items() if name != "source"}
    return source, {**options, **given}


@pytest.fixture
async def make_lua_server(
    request: pytest.FixtureRequest, _lua_settings: dict[str, Any], lua_options: dict[str, Any]
) -> AsyncIterator[Callable[..., Awaitable[LuaServer]]]:
    """Starts servers that end with the test; arguments as for :func:`trio_lua.testing.open_server`."""
    from trio_lua.testing import open_server

    over = trio.Event()

    async def run(
        source: Any, settings: dict[str, Any], *, task_status: trio.TaskStatus[LuaServer]
    ) -> None:
        async with open_server(source, **settings) as server:
            task_status.started(server)
            await over.wait()

    # the servers' tasks belong to this fixture, whichever task asks for a server
    async with trio.open_nursery() as nursery:

        async def make(source: Any = None, **options: Any) -> LuaServer:
            settings = {**_lua_settings, **lua_options, **options}
            server: LuaServer = await nursery.start(run, source, _traced(request, settings))
            _reports(request).append(server.report)
            return server

        yield make
        over.set()


@pytest.fixture
async def lua_server(
    request: pytest.FixtureRequest,
    lua_conf: Any,
    lua_options: dict[str, Any],
    _lua_settings: dict[str, Any],
) -> AsyncIterator[LuaServer]:
    """A server of what the marker ``lua`` or the fixture ``lua_conf`` says."""
    from trio_lua.testing import open_server

    source, options = _asked_for(request, lua_conf, lua_options)
    settings = _traced(request, {**_lua_settings, **options})
    async with open_server(source, **settings) as server:
        _reports(request).append(server.report)
        yield server


@pytest.fixture
def lua_client(lua_server: LuaServer) -> Client:
    """The client of ``lua_server``."""
    return lua_server.client


@pytest.fixture
def lua_shared(lua_server: LuaServer) -> Mapping[str, SharedDict]:
    """The shared dictionaries of ``lua_server`` by name."""
    return lua_server.shared


@pytest.fixture
def lua_patch(lua_server: LuaServer) -> Callable[[str, str], None]:
    """Replaces a Lua function of ``lua_server`` for the rest of the test."""
    return lua_server.lua.patch


@pytest.fixture
async def lua(
    request: pytest.FixtureRequest,
    lua_conf: Any,
    lua_options: dict[str, Any],
    lua_clock: LuaClock,
    _lua_settings: dict[str, Any],
) -> AsyncIterator[Lua]:
    """A VM without a server, with the settings of ``lua_conf``."""
    from trio_lua.testing import configuration, open_lua
    from trio_lua.testing.report import Report
    from trio_lua.testing.server import check_leaks

    source, options = _asked_for(request, lua_conf, lua_options)
    options = {**_lua_settings, **options}
    log, network = options.pop("log"), options.pop("network", None)
    del options["clock"]
    allowed = options.pop("allow_leaks", ())
    config = configuration(source, **options)
    async with open_lua(config, epoch=lua_clock.epoch, log=log, network=network) as vm:
        report = Report(vm.runtime, vm, log, None)
        _reports(request).append(report)
        try:
            yield vm
            check_leaks(vm, report, allowed)
        finally:
            report.finish()
