"""Follow the curvature of a network while it trains."""
