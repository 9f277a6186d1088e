"""Peers of the network in memory, spoken to by lines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
import trio.testing


async def talk_to(serve: Callable[[trio.abc.Stream], Awaitable[None]], commands: str) -> list[str]:
    """The lines that answer commands, one a line."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, theirs)
        lines = [line.strip() for line in commands.strip().splitlines()]
        await ours.send_all("".join(f"{line}\r\n" for line in lines).encode())
        await ours.send_eof()
        received = b"".join([bytes(part) async for part in ours]).decode()
    return received.split("\r\n")[:-1]
