"""Does a rule, or a network from elsewhere, do what it says? The kit behind ``wtdiag check`` and ``wtdiag audit``.

- ``subject``: a rule with small networks that learn by it; ``verdicts``: what a check is, and the table of all checks.
- ``transport``, ``learning``, ``ecosystem``: the checks of a rule. A new check is one new function in one of them.
- ``conform``: all checks of one rule, which the command and the suite over the registry call.
- ``named``: objects that are given as ``module:name``.
"""
