"""What could be saved: the ledger's calls replayed under other rules."""
