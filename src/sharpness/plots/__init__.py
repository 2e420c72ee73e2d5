"""Pictures of curvature that a notebook wants in one line; matplotlib is imported where they are drawn."""
