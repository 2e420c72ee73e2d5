"""The report of a study: its page, what made it and what it cost."""
