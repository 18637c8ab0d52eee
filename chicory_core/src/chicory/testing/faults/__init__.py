"""Real faults: worker processes that are killed, frozen and cut off, and a ledger that says what really happened."""
