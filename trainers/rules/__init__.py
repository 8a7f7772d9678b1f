"""One small file per paper. A new rule is one new file here: discovery does the rest."""

from importlib import import_module
from pkgutil import iter_modules

from wtdiag.trainers.rules.base import RULES, Recipe, Rule, register, rule

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

# Listed as one reads them: backprop, then fixed feedback, then learned; within each by name.
for _name in sorted(RULES, key=lambda name: (not RULES[name].transports, RULES[name].learned, name)):
    RULES[_name] = RULES.pop(_name)

__all__ = ["RULES", "Recipe", "Rule", "register", "rule"]
