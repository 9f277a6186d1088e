"""Messages between the worker processes of a master (OpenResty has none; the Lua side is ``ngx.ipc``).

Each worker has an *inbox*, a socket pair that the master makes and all processes inherit, so that a replacement goes on
reading where a dead worker stopped. What is sent to it are frames, which do not mix: those of a large message take turns with
those of other senders. :mod:`.frame` is their form, :mod:`.table` who has which inbox, :mod:`.mesh` the master's
side and :mod:`.endpoint` a worker's.
"""
