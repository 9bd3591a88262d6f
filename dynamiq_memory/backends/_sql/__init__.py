"""The parts that both SQL stores share: tables, records, filters, reading, writing, searching."""
