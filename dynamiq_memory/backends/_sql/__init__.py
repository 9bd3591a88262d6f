"""What the SQL stores share: tables, rows, filters, statements."""
