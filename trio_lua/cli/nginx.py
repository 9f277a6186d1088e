"""``trio-lua-nginx``: nginx's command line, option for option.

Service files, scripts and test harnesses that start, test, signal and ask nginx work with this
command unchanged. They ask for the version often, and it must answer at once: this module
imports next to nothing until it knows that a server is wanted.
"""

from __future__ import annotations

import sys

from trio_lua import __version__
from trio_lua.about import CONFIGURE, NGINX_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Options", "UsageError", "main", "parse"]

DEFAULT_CONF = "conf/nginx.conf"
DEFAULT_ERROR_LOG = "logs/error.log"

_HELP = f"""\
Usage: trio-lua-nginx [-?hvVtTq] [-s signal] [-p prefix]
                      [-e filename] [-c filename] [-g directives]

Options:
  -?, -h         : show this text
  -v             : show the version
  -V             : show the version and how the server was built
  -t             : check the configuration, then exit
  -T             : the same, and print the configuration
  -q             : with -t or -T, print errors only
  -s signal      : tell a running server to stop, quit, reopen or reload
  -p prefix      : the folder that relative paths start from (default: the working folder)
  -e filename    : the log of errors at start-up, or stderr (default: {DEFAULT_ERROR_LOG})
  -c filename    : the configuration file (default: {DEFAULT_CONF})
  -g directives  : further global directives

"""

_SIGNALS = ("stop", "quit", "reopen", "reload")


class UsageError(Exception):
    """The command line is not right; the text is nginx's."""


class Options:
    """What the command line asks for."""

    # no dataclass: importing that module takes longer than everything else -V does
    def __init__(self) -> None:
        self.help = False
        self.version = False
        self.configure = False
        self.test = False
        self.dump = False
        self.quiet = False
        self.prefix: str | None = None
        self.error_log: str | None = None
        self.conf: str | None = None
        self.directives = ""
        self.signal: str | None = None


#: Options with a value: what is missing when it is not there.
_VALUES = {
    "p": "directory name",
    "e": "file name",
    "c": "file name",
    "g": "parameter",
    "s": "parameter",
}


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line as nginx does: flags may share a dash, values may stick to theirs.

    Raises:
        UsageError: nginx would refuse it.
    """
    options = Options()
    rest = list(reversed(arguments))
    while rest:
        argument = rest.pop()
        if not argument.startswith("-"):
            raise UsageError(f'invalid option: "{argument}"')
        for index, letter in enumerate(argument[1:], 2):
            if letter in _VALUES:
                value = argument[index:]
                if not value:
                    if not rest:
                        raise UsageError(f'option "-{letter}" requires {_VALUES[letter]}')
                    value = rest.pop()
                _set_value(options, letter, value)
                break
            _set_flag(options, letter)
    return options


def _set_flag(options: Options, letter: str) -> None:
    if letter in "?h":
        options.version = options.help = True
    elif letter == "v":
        options.version = True
    elif letter == "V":
        options.version = options.configure = True
    elif letter == "t":
        options.test = True
    elif letter == "T":
        options.test = options.dump = True
    elif letter == "q":
        options.quiet = True
    else:
        raise UsageError(f'invalid option: "{letter}"')


def _set_value(options: Options, letter: str, value: str) -> None:
    if letter == "p":
        options.prefix = value
    elif letter == "e":
        options.error_log = value
    elif letter == "c":
        options.conf = value
    elif letter == "g":
        options.directives = value
    elif value in _SIGNALS:
        options.signal = value
    else:
        raise UsageError(f'invalid option: "-s {value}"')


def _openssl() -> str:
    # the C module alone: ``import ssl`` takes several times as long
    try:
        import _ssl
    except ImportError:
        return ""
    return f"built with {_ssl.OPENSSL_VERSION}\n"


def _version_text(options: Options) -> str:
    text = f"nginx version: nginx/{NGINX_VERSION} (trio_lua {__version__})\n"
    if options.help:
        text += _HELP
    if options.configure:
        python = ".".join(map(str, sys.version_info[:3]))
        text += f"built by trio_lua {__version__} for Python {python}, in place of nginx\n"
        text += _openssl()
        text += f"configure arguments:{CONFIGURE}\n"
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
    except UsageError as exc:
        sys.stderr.write(f"nginx: {exc}\n")
        return 1
    if options.version:
        sys.stderr.write(_version_text(options))
        if not options.test:
            return 0
    from trio_lua.cli.nginx_server import run

    return run(options)


if __name__ == "__main__":
    sys.exit(main())
