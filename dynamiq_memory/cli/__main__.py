"""`python -m dynamiq_memory.cli`."""

from dynamiq_memory.cli import main

main()
