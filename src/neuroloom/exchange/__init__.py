"""Exchange: what goes out of neuroloom, to other formats and other programs."""
