"""Where nodes (fragments) and edges (pairs of touching fragments, with merge scores) are kept.

Stages write a block's rows and read them back in the order of the blocks; they know a few methods of a store, and
nothing of where it lies:

    write_nodes(block_number, nodes)    write_edges(block_number, edges)    idempotent; a block owns its rows
    write_outside(block_number, outside)                                    likewise
    nodes(), edges()                                                        block by block, always in the same order

`GraphFiles` (the default) keeps them in files and needs no server.
"""

from neuroloom.graph.files import GraphFiles
from neuroloom.graph.tables import Edges, Nodes, Outside

__all__ = ["Edges", "GraphFiles", "Nodes", "Outside"]
