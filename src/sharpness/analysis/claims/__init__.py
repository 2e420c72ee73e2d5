"""A verdict on every claim of the poster, from the collected tables of a study."""
