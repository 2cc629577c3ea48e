"""What the gateway keeps: keys, usage and the ledger, in SQLite or PostgreSQL; audit and retention."""
