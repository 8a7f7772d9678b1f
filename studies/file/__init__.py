"""What a study file says.

`plan` reads it, `space` holds the ranges of a search, `methods` and `architectures` what a file names.
"""
