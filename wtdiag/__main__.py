"""``python -m wtdiag``: the command line."""

from wtdiag.cli import main

if __name__ == "__main__":
    main()
