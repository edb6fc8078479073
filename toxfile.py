"""Lets tox find every interpreter that pyenv keeps, not only the selected ones."""

import os
from pathlib import Path

if (root := os.environ.get("PYENV_ROOT")) and "PYENV_VERSION" not in os.environ:
    kept = sorted(path.name for path in Path(root, "versions").glob("3.*"))
    os.environ["PYENV_VERSION"] = ":".join(kept)
