"""From a source picture to an encoded black-and-white output.

The only importer of pyvips and Pillow. Called by the converters, in their own
processes, and by `bwpool preview` (whose sheet is made in `convert.preview`); the
supervisor must never import it.
"""

from bwpool.convert.functions import find_all
from bwpool.convert.pipeline import convert, prepare

__all__ = ["convert", "prepare"]

find_all()  # what is missing is missed now, not at the first job that needs it
