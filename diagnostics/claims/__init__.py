"""Claims of the papers, and what decides them. A new claim is one new function in a file here."""

from importlib import import_module
from pkgutil import iter_modules

from wtdiag.diagnostics.claims.base import CLAIMS, Claim, Measured
from wtdiag.diagnostics.claims.table import claims_table
from wtdiag.diagnostics.claims.verdicts import VERDICTS, Result, decide, read_claims, write_claims

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["CLAIMS", "VERDICTS", "Claim", "Measured", "Result", "claims_table", "decide", "read_claims", "write_claims"]
