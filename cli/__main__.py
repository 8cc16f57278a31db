"""``python -m hadas.cli``: the command where its script is not on the path, as under torchrun."""

from . import main

if __name__ == "__main__":
    main()
