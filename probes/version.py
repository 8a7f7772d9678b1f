"""The version of wtdiag, where pyproject.toml and `wtdiag.__version__` read it."""

__version__ = "0.2.0"
