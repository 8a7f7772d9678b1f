"""Charts: one file for each kind of chart, drawn in one `style` on shared `axes`; `plot` is ``wtdiag.plot``.

They take an analysis dataset or plain values and return matplotlib axes; they know nothing of runs or pages.
A new chart is one function here, listed in `plot`.
"""
