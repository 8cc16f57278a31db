"""Before anything is downloaded: is this Python new enough, is there room, what will it cost?

Standard library only; runs before the virtual environment exists.
"""

import argparse
import shutil
import sys
from pathlib import Path

NEEDED_PYTHON = (3, 11)
DOWNLOAD_GB = 3.5
INSTALLED_GB = 7.0


def main() -> int:
    """Print what setup will do; exit status 2 with the remedy if it cannot work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that make was told to use")
    arguments = parser.parse_args()
    if sys.version_info < NEEDED_PYTHON:
        needed = ".".join(map(str, NEEDED_PYTHON))
        print(
            f"hadas needs Python {needed} or newer; '{arguments.python}' is {sys.version.split()[0]}. "
            f"Name a newer one: make setup PYTHON=python{needed}",
            file=sys.stderr,
        )
        return 2
    free_gb = shutil.disk_usage(Path(__file__).resolve().parent).free / 1e9
    if free_gb < INSTALLED_GB + 1:
        print(
            f"hadas installs about {INSTALLED_GB:.0f} GB (PyTorch with its GPU libraries is most of it); "
            f"only {free_gb:.1f} GB are free here. Free some room, or clone onto a larger disk.",
            file=sys.stderr,
        )
        return 2
    print(
        f"Setting up .venv: about {DOWNLOAD_GB:.1f} GB to download once, {INSTALLED_GB:.0f} GB on disk "
        f"({free_gb:.0f} GB free); 2 to 10 minutes on a fast line."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
