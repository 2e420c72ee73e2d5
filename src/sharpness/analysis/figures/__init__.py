"""One function per figure, from tidy tables to a matplotlib figure; each in the module of its name."""
