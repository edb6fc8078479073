"""Where pictures are read from and written to: files, for now.

Owns the rules of source URIs, the naming of outputs, and what makes an output
atomic and durable. Called by the converters, and by the supervisor, which probes the
output folder and clears it of stale temporary files; so nothing here may import a
picture library.
"""

from bwpool.storage.mounts import mounts_of
from bwpool.storage.naming import format_of_name, output_name
from bwpool.storage.neighbours import AWAY
from bwpool.storage.output import (
    Pending,
    Place,
    commit_all,
    probe,
    remove_stale_temporaries,
    remove_temporaries,
)
from bwpool.storage.source import Source, open_source, parse_uri
from bwpool.storage.trial import mark_temporaries

__all__ = [
    "AWAY",
    "Pending",
    "Place",
    "Source",
    "commit_all",
    "format_of_name",
    "mark_temporaries",
    "mounts_of",
    "open_source",
    "output_name",
    "parse_uri",
    "probe",
    "remove_stale_temporaries",
    "remove_temporaries",
]
