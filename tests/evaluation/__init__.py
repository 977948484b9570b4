"""Scoring: a package, so that its test files may be called as those of other rooms."""
