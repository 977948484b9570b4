"""Other files become volumes: HDF5, TIFF, PNG, NPY, zarr and N5."""

from neuroloom.volume.importing.importer import Imported, import_volume

__all__ = ["Imported", "import_volume"]
