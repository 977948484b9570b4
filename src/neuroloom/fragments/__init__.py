"""Affinities -> fragments (supervoxels): the pieces that agglomeration puts together."""

from neuroloom.fragments.watershed import fragments

__all__ = ["fragments"]
