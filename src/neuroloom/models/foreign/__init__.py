"""Networks of somebody else: declared in a file, run as TorchScript or ONNX; nothing of theirs is ever unpickled.

declaration   what is said of a network       geometry   the tiles that its extents allow
package       what bioimage.io says of it     network    running it
"""

from neuroloom.models.foreign.declaration import Declaration, ForeignModel, is_foreign, read_foreign

__all__ = ["Declaration", "ForeignModel", "is_foreign", "read_foreign"]
