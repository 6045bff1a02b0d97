"""Propose, schedule, survive, record: a sweep over the accuracy-similarity trade-off."""
