"""Threshold -> lookup table -> segmentation."""

from neuroloom.segmentation.enclosed import Contacts, absorb_enclosed, contacts, lookup_tables
from neuroloom.segmentation.lookup import (
    SizeRules,
    load_lookup,
    lookup_name,
    lookup_table,
    map_lookup,
    relabel,
    save_lookup,
)
from neuroloom.segmentation.mapped import mapped

__all__ = [
    "Contacts",
    "SizeRules",
    "absorb_enclosed",
    "contacts",
    "load_lookup",
    "lookup_name",
    "lookup_table",
    "lookup_tables",
    "map_lookup",
    "mapped",
    "relabel",
    "save_lookup",
]
