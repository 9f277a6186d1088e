"""Test::Nginx files (``*.t``) without Perl and without a process: their data blocks run in memory, on virtual time."""

from __future__ import annotations

from trio_lua.testing.blocks.parse import Block, NeedsPerl, TestFile, parse_file
from trio_lua.testing.blocks.run import BlockFailure, run_block

__all__ = ["Block", "BlockFailure", "NeedsPerl", "TestFile", "parse_file", "run_block"]
