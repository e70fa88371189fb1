"""``taskbus doctor``: what of a setup will hurt, and what to change."""
