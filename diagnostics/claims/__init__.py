"""Claims of the papers, and how each is decided. A new claim is one new function in the file of its paper."""

from wtdiag.diagnostics.claims.base import CLAIMS, Claim, Measured
from wtdiag.diagnostics.claims.table import claims_table
from wtdiag.diagnostics.claims.verdicts import VERDICTS, Result, decide, read_claims, write_claims
from wtdiag.probes.discovery import discover

discover(__name__, __path__)

__all__ = ["CLAIMS", "VERDICTS", "Claim", "Measured", "Result", "claims_table", "decide", "read_claims", "write_claims"]
