"""Measure the library against the floor: one bare INSERT and COMMIT of the raw driver."""
