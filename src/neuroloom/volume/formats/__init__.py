"""Arrays in other formats than zarr, read where they lie: HDF5, N5 and Neuroglancer's precomputed."""
