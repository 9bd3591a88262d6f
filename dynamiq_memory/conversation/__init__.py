"""What an agent is given, and what of a turn is kept. No I/O: what must be read is asked for by plans."""
