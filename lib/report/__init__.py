"""What this report says and draws of its subject: each figure from the table of its study, each
sentence of the page's opening from the claims.

It stands on the paper's machinery, which knows none of it, and imports nothing else of ours:
tables and claims come as arguments."""
