"""The work queue: the only part of bwpool that imports nats."""
