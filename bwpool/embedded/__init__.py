"""A nats-server of our own, for those who have none.

`server` runs it, in a folder that `state_folder` keeps; `binary` finds the program,
`access` settles who may connect, `log` reads what it says. Called by the command line
(`backfill`, `dev`, `run --embedded`, `failed --out`); knows nothing of streams, and
doesn't import nats.
"""

from bwpool.embedded.access import Access
from bwpool.embedded.binary import find_server
from bwpool.embedded.server import EmbeddedServer, find_running

__all__ = ["Access", "EmbeddedServer", "find_running", "find_server"]
