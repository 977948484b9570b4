"""Where nodes (fragments) and edges (pairs of touching fragments, with merge scores) are kept.

Stages write a block's rows and read them back in the order of the blocks; they know a few methods of a store, and
nothing of where it lies:

    write_nodes(block_number, nodes)    write_edges(block_number, edges)    idempotent; a block owns its rows
    write_outside(block_number, outside)                                    likewise
    nodes(), edges()                                                        block by block, always in the same order

tables     the rows                              files      Arrow files, the default: no server
store      the interface                         sqlite     one file, for one machine
place      where a stage's rows are kept         postgres   PostgreSQL
keeping    a stage that keeps rows               mongo      MongoDB, and what speaks its language
copying    from one store to another
"""

from neuroloom.graph.files import GraphFiles
from neuroloom.graph.keeping import KeepsGraph
from neuroloom.graph.place import GraphPlace
from neuroloom.graph.store import GraphStore, Run
from neuroloom.graph.tables import Edges, Nodes, Outside

__all__ = ["Edges", "GraphFiles", "GraphPlace", "GraphStore", "KeepsGraph", "Nodes", "Outside", "Run"]
