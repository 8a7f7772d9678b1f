"""The pages on studies, sweeps and transfers.

`study_page`, `sweep_page` and `transfer_page` are the pages; files whose names end in `_section`, `factors`, `levels`
and `boundaries` are sections; `shared` holds what they have in common.
"""
