"""The pages on studies, sweeps and transfers.

`study_page`, `sweep_page` and `transfer_page` build the reports that `wtdiag.reports.publish` writes; files whose names
end in `_section`, `factors`, `levels` and `boundaries` are sections; `shared` holds what they have in common.
"""
