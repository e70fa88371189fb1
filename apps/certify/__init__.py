"""``taskbus certify``: whether a worker bears its tasks twice, in any order, side by side and killed midway."""
