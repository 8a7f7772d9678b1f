"""Learning rules, one small file per paper. A new rule is one new file here, which discovery finds.

`base` says what a rule is, `local` what it sees at a layer, `primitives` and `regularised` hold the rules that are sums
of terms, `direct` those that project the output's error, `factored` those whose feedback is a product of two factors,
`perturbed` those that draw noise in the forward pass.
"""

from wtdiag.probes.discovery import discover
from wtdiag.trainers.rules.base import RULES, Recipe, Rule, register, rule

discover(__name__, __path__)
RULES.open()

__all__ = ["RULES", "Recipe", "Rule", "register", "rule"]
