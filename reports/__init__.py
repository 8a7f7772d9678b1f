"""Show: reads the files of a run but its snapshots, and the results, claims and record of a study; nothing else.

- ``document``: what a report holds, and its renderings as HTML and PDF.
- ``figures``: charts, and how they look.
- ``run``, ``comparison``, ``study``: the pages.
- ``publish``: writes them; ``gallery`` draws docs/gallery.md.
"""

from wtdiag.reports.publish import FORMATS, write

__all__ = ["FORMATS", "write"]
