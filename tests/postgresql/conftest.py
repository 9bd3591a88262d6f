"""A PostgreSQL server for the tests of a process: one of the wheel, on a socket in a folder of its own."""
