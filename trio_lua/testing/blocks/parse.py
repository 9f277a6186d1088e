"""From a ``*.t`` file to its data blocks.

What stands before ``__DATA__`` is a Perl program. Most of them say how often and in what order blocks
run, which does not matter here, and give names to pieces of text; one that does more needs Perl, and so does the whole
file then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trio_lua.testing.blocks.perl import NeedsPerl, expression_length

__all__ = ["Assignment", "Block", "NeedsPerl", "Section", "TestFile", "parse_file"]

#: Statements of a program that change nothing for a block that runs alone.
_HARMLESS = re.compile(
    r"(?:use\s|repeat_each|plan\b|no_long_string|no_diff|no_shuffle|run_tests|workers\(|worker_connections"
    r"|master_on|master_off|check_accum_error_log|log_level|no_root_location"
    r"|our \$\w+ = \$t::StapThread::\w+;|env_to_nginx|__END__|1;|timeout\(|chomp[ (]"
    r"|add_cleanup_handler\(\);|our \$\w+;|#)[^\n]*\n"
)
_LOG_LEVEL = re.compile(r"^\s*log_level\W+(\w+)", re.MULTILINE)
_ASSIGNMENT = re.compile(
    r"(?:our|my)\s+\$(\w+)\s*=\s*|\$ENV\{['\"]?(\w+)['\"]?\}\s*(?:\|\||//)?=\s*"
)
_HERE = re.compile(r"<<\s*(['\"]?)(\w+)\1;\n(.*?)^\2\n", re.MULTILINE | re.DOTALL)
#: A function of suites that use certificates, always the same.
_READ_FILE = re.compile(r"^sub read_file \{\n.*?^\}\n", re.MULTILINE | re.DOTALL)
_OWN_FOLDER = "dirname(realpath(abs_path(__FILE__)))"
_SECTION = re.compile(r"^--- +(\w+)((?: +\w+)*) *(?::(?: +(.*))?)?$")


@dataclass(frozen=True)
class Section:
    """A section of a block.

    Attributes:
        text: Its text.
        filters: The words behind its name, such as ``eval``.
    """

    text: str
    filters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """A test.

    Attributes:
        name: Its title, such as ``TEST 1: basic print``.
        line: Where it begins in the file.
        sections: Its sections by name.
    """

    name: str
    line: int
    sections: dict[str, Section]


@dataclass(frozen=True)
class Assignment:
    """What a program gives a name.

    Attributes:
        name: Of the variable.
        value: The expression; of a text between two words, the text itself.
        environment: Whether it is a variable of the environment, which is set only where it is not.
        plain: Whether the value is text, and no expression.
    """

    name: str
    value: str
    environment: bool = False
    plain: bool = False


@dataclass
class TestFile:
    """A file.

    Attributes:
        path: Where it is.
        blocks: Its tests.
        needs_perl: The line that needs Perl; None when there is none.
        log_level: The level of error.log.
        root_location: Whether there is a ``location /``.
        assignments: What the program gives names to.
    """

    __test__ = False

    path: Path
    blocks: list[Block] = field(default_factory=list)
    needs_perl: str | None = None
    log_level: str = "debug"
    root_location: bool = True
    assignments: list[Assignment] = field(default_factory=list)


def parse_file(path: Path) -> TestFile:
    """Read a file.

    Raises:
        OSError: It cannot be read.
    """
    # a byte is a character: blocks are not always UTF-8
    text = path.read_bytes().decode("latin-1")
    parts = re.split(r"^__(?:DATA|END)__\n", text, maxsplit=1, flags=re.MULTILINE)
    program, data = parts if len(parts) == 2 else (text, "")
    program = re.sub(r"^=(\w+).*?^=cut$", "", program, flags=re.MULTILINE | re.DOTALL)
    file = TestFile(path)
    try:
        file.assignments = list(_assignments(program))
    except NeedsPerl as error:
        file.needs_perl = str(error)
    level = _LOG_LEVEL.search(program)
    if level is not None:
        file.log_level = level[1]
    file.root_location = not re.search(r"^no_root_location", program, re.MULTILINE)
    file.blocks = list(_blocks(data, text.count("\n") - data.count("\n") + 1))
    return file


def _assignments(program: str) -> Iterator[Assignment]:
    """What a program gives names to.

    Raises:
        NeedsPerl: It does more than that.
    """
    text = _READ_FILE.sub("", program).replace(_OWN_FOLDER, "own_folder()") + "\n"
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif (harmless := _HARMLESS.match(text, at)) is not None:
            at = harmless.end()
        elif (begun := _ASSIGNMENT.match(text, at)) is not None:
            name, line, at = begun[1] or begun[2], text[at:].split("\n")[0].strip(), begun.end()
            here = _HERE.match(text, at)
            if here is not None:
                plain = here[1] == "'"
                value = here[3] if plain else f"qq\0{here[3]}\0"
                yield Assignment(name, value, begun[1] is None, plain)
                at = here.end()
                continue
            try:
                length = expression_length(text[at:])
            except NeedsPerl:
                raise NeedsPerl(line) from None
            yield Assignment(name, text[at : at + length], begun[1] is None)
            at += length + 1
        else:
            raise NeedsPerl(text[at:].split("\n")[0].strip())


def _blocks(data: str, first: int) -> Iterator[Block]:
    lines = data.split("\n")
    starts = [index for index, line in enumerate(lines) if line.startswith("===")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield Block(
            lines[start][3:].strip(), first + start, dict(_sections(lines[start + 1 : end]))
        )


def _sections(lines: list[str]) -> Iterator[tuple[str, Section]]:
    name, filters, text = "", (), []  # type: tuple[str, tuple[str, ...], list[str]]
    for line in [*lines, "--- END"]:
        match = _SECTION.match(line)
        if match is None:
            text.append(line)
            continue
        if name:
            yield name, Section(_trimmed("\n".join([*text, ""])), filters)
        name, filters, text = match[1], tuple(match[2].split()), []
        if match[3] is not None:
            yield name, Section(match[3].strip(), filters)
            name = ""


def _trimmed(text: str) -> str:
    """Without blank lines at the beginning and the end."""
    text = re.sub(r"\A(?:[ \t]*\n)+", "", text)
    return re.sub(r"(?<=\n)\s*\Z", "", text)
