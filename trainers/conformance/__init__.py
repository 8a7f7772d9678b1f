"""Does a rule, or a network from elsewhere, do what it says? The kit behind ``wtdiag check`` and ``wtdiag audit``.

- ``subject``: a rule with small networks that learn by it; ``requirements``: what a check is, and the table of them.
- ``transport``, ``feedback_learning``, ``ecosystem``: the checks of a rule. A new check is one new function there.
- ``conform``: all checks of one rule, which the command and the suite over the registry call.
- ``error_audit``, ``replay``, ``tensors_of``: the audit of a network from elsewhere.
- ``named``: objects that are given as ``module:name``.
"""
