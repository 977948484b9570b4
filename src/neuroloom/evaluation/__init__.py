"""How good a segmentation is: overlap tables, VOI and Rand scores, the choice of the threshold, the report."""
