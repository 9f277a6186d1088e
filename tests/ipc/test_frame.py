"""Messages become datagrams and messages again."""

from __future__ import annotations

import random

import pytest

from trio_lua.ipc.frame import MAX_DATAGRAM, MAX_MESSAGE, Assembler, datagrams, slots_of, slots_told


def joined(slot: int, message: bytes, *, pid: int = 0, incarnation: int = 1) -> list[memoryview]:
    """The datagrams of a message from a slot."""
    pid = pid or 100 + slot
    return [memoryview(b"".join(pieces)) for pieces in datagrams(slot, pid, incarnation, message)]


def assembler(dead: set[int] | None = None) -> Assembler:
    return Assembler(1, lambda _slot, pid: pid not in (dead or ()))


@pytest.mark.parametrize(
    "size", [0, 1, MAX_MESSAGE, MAX_MESSAGE + 1, MAX_MESSAGE * 3, MAX_MESSAGE * 7 + 123]
)
def test_there_and_back(size: int) -> None:
    message = random.Random(size).randbytes(size)
    pieces = joined(3, message)
    assert all(len(piece) <= MAX_DATAGRAM for piece in pieces)
    assert len(pieces) == 1 or size > MAX_MESSAGE
    receiver = assembler()
    *before, last = [receiver.receive(piece) for piece in pieces]
    assert before == [None] * len(before)
    assert last is not None
    assert (last[0], last[1], bytes(last[2])) == (3, 103, message)


def test_large_messages_of_several_senders_mix() -> None:
    chance = random.Random(1)
    sent = {
        slot: [chance.randbytes(chance.randrange(200_000)) for _ in range(5)] for slot in range(4)
    }
    waiting = {
        slot: [piece for message in messages for piece in joined(slot, message)]
        for slot, messages in sent.items()
    }
    got: dict[int, list[bytes]] = {slot: [] for slot in sent}
    receiver = assembler()
    while waiting:
        slot = chance.choice(list(waiting))
        result = receiver.receive(waiting[slot].pop(0))
        if result is not None:
            assert result[0] == slot
            got[slot].append(bytes(result[2]))
        if not waiting[slot]:
            del waiting[slot]
    assert got == sent


def test_what_is_meant_for_an_earlier_use_of_the_slot() -> None:
    receiver = assembler()
    assert receiver.receive(*joined(0, b"x", incarnation=2)) is None


def test_a_sender_dies_in_the_middle() -> None:
    """Its replacement begins anew, and what it has begun is forgotten."""
    first, *_ = joined(0, b"x" * 100_000, pid=1)
    dead: set[int] = set()
    receiver = assembler(dead)
    assert receiver.receive(first) is None
    whole = joined(0, b"y" * 100_000, pid=2)
    results = [receiver.receive(piece) for piece in whole]
    assert results[-1] is not None
    assert bytes(results[-1][2]) == b"y" * 100_000
    assert receiver.receive(first) is None
    assert receiver._partial
    dead.add(1)
    assert receiver.receive(*joined(1, b"z")) is not None
    assert not receiver._partial


def test_the_end_of_what_somebody_else_has_begun_to_receive() -> None:
    _, *rest = joined(0, b"x" * 200_000)
    receiver = assembler()
    assert [receiver.receive(piece) for piece in rest] == [None] * len(rest)
    assert receiver.receive(*joined(0, b"next")) is not None


def test_slots_told() -> None:
    assert slots_of(memoryview(slots_told(1, [3, 700]))) == [3, 700]
