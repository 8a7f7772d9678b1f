"""The study file, read and checked.

`plan` reads the file, `space` the ranges of a search; `methods` and `architectures` check what the file names.
"""
