"""The contracts: one module a table, pyarrow only.

Every table that one part of interloom writes for another is declared here, with a version.
"""
