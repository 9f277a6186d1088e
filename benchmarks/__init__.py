"""trio_lua side by side with other servers: ``python -m benchmarks`` (see README.md)."""
