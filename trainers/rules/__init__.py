"""One small file per paper. A new rule is one new file here: discovery does the rest."""

from wtdiag.probes.discovery import discover
from wtdiag.trainers.rules.base import RULES, Recipe, Rule, register, rule

discover(__name__, __path__)

# Listed as one reads them: backprop, then fixed feedback, then learned; within each by name.
for _name in sorted(RULES, key=lambda name: (not RULES[name].transports, RULES[name].learned, name)):
    RULES[_name] = RULES.pop(_name)

__all__ = ["RULES", "Recipe", "Rule", "register", "rule"]
