"""One page that shows a run to others: what was asked, what came out, how far to trust it."""
