"""What an agent is given, and what of a turn is kept. No I/O: plans request what must be read."""
