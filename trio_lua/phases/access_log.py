"""Access log lines: ``log_format`` evaluated for a request and written where ``access_log`` says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from trio_lua.api.runtime import Runtime
from trio_lua.config.model import AccessLog, LogFormat, Template, Var
from trio_lua.config.model import AccessLog as AccessLogDirective
from trio_lua.log.access_log import COMBINED, escaper
from trio_lua.log.access_log import AccessLog as AccessLogFile
from trio_lua.log.files import LogFiles
from trio_lua.request.state import Request

__all__ = ["AccessLogs"]


class _Format:
    __slots__ = ("_count", "_escape", "_literal", "_runtime", "_template")

    def __init__(self, template: Template, escape: str, runtime: Runtime) -> None:
        self._template = runtime.template(template)
        self._literal = [not isinstance(part, Var) for part in template.parts]
        self._escape = escaper(escape)
        self._runtime = runtime

    def line(self, request: Request) -> bytes:
        values = self._runtime.eval_parts(request.id, self._template)
        if not isinstance(values, tuple):
            values = (values,)
        escape = self._escape
        return b"".join(
            value if literal else escape(value or None)
            for value, literal in zip(values, self._literal, strict=True)
        )


class AccessLogs:
    """The access logs of a configuration.

    Args:
        runtime: The VM.
        formats: ``log_format`` by name.
        prefix: The server's prefix directory.
        files: Where the files are opened.
        compile_template: Makes a template of text.
    """

    def __init__(
        self,
        runtime: Runtime,
        formats: Mapping[str, LogFormat],
        *,
        prefix: str,
        files: LogFiles,
        compile_template: Callable[[str], Template],
    ) -> None:
        self._files = files
        self._prefix = prefix
        self._formats = {
            name: _Format(f.template, f.escape, runtime) for name, f in formats.items()
        }
        if "combined" not in self._formats:
            self._formats["combined"] = _Format(compile_template(COMBINED), "default", runtime)
        self._logs: dict[str, AccessLogFile] = {}

    def open(self, logs: Sequence[AccessLogDirective]) -> None:
        """Open the files that are known before any request.

        Raises:
            ConfigError: One cannot be opened.
        """
        for log in logs:
            if log.path.literal is not None:
                self._file(log.path.literal)

    def _file(self, path: str) -> AccessLogFile:
        file = self._logs.get(path)
        if file is None:
            file = self._logs[path] = AccessLogFile(path, prefix=self._prefix, files=self._files)
        return file

    def write(self, request: Request, logs: Sequence[AccessLog]) -> None:
        """Write the lines of a request."""
        for log in logs:
            if log.condition is not None and request.evaluate(log.condition) in (b"", b"0"):
                continue
            line = self._formats[log.format].line(request)
            path = log.path.literal
            if path is not None:
                self._file(path).write(line)
                continue
            name = request.evaluate(log.path).decode("utf-8", "surrogateescape")
            if not name.startswith("/"):
                name = self._prefix + name
            try:
                self._files.write_once(name, line + b"\n")
            except OSError as error:
                request.log(3, f'open() "{name}" failed ({error.errno}: {error.strerror})'.encode())
