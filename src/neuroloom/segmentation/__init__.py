"""Threshold -> lookup table -> segmentation."""

from neuroloom.segmentation.lookup import load_lookup, lookup_name, lookup_table, relabel, save_lookup

__all__ = ["load_lookup", "lookup_name", "lookup_table", "relabel", "save_lookup"]
