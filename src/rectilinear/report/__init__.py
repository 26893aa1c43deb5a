"""From results to tables, plots and pages; no torch."""
