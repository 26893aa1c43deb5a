"""Cutting depth: plan, repair, judge."""
