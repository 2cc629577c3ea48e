"""The ledger: what crossed, in chains of hashes that show what was cut or altered."""
