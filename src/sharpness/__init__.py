"""Where SGD goes: the curvature of a network's loss along its training trajectory.

Nothing heavy is imported here, so that the workflow gets its grid without torch.
"""
