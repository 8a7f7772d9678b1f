"""wtdiag: train, record and explain networks that learn without weight transport.

The public names stand in ``__init__.pyi``, where type checkers and editors read them too; each is loaded when it is
first asked for, so that ``import wtdiag`` costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
