"""bwpool: pictures to black and white, in bulk, fed by a NATS JetStream work queue."""

__version__ = "0.1.0"
