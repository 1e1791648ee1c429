"""The budget managers: of one pool of a store, of many pools, and of one pool in memory."""
