"""The configuration of a run.

`settings` adds to the declarations in `probes.records.config` what depends on the rule, `schedules` change rates and
coefficients over time, `datasets` and `device` provide data and device, and `build` the network.
"""
