"""`python -m neuroloom.cli` is `neuroloom`."""

from neuroloom.cli import main

main()
