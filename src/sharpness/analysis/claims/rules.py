"""The numbers in the rules by which claims are decided; docs/claims.md says what they mean and why."""

from __future__ import annotations

import math

LEVEL = 0.95  # of intervals; tests are two-sided at what is left
POWER = 0.8  # with which so many seeds would decide
FIRST_CONFIRMING = 3  # seeds below it were seen when the rules were made: they explore
DOUBLED = math.log10(2)  # decades by which the largest eigenvalue rises at least
AFTER_PEAK = 5  # checkpoints without which a configuration has no slope after its peak
ABOUT_TEN = 0.5  # decades: nearer to a factor of ten than to none
SAME = 0.1  # decades within which two quantities are the same
POINT = 1.0  # of accuracy, in per cent, within which two are the same
BOTTOM, WALLS = 2.0, 8.0  # expected steps: where a bowl has its minimum, and how far it is looked at
WALL = 10.0  # per cent of the loss by which a bowl rises
ALPHAS = (0.5, 1.0, 2.0)  # factors on a step, between which and 0 a parabola is laid
LAST_QUARTER = 0.75  # of the steps of a variant, where it begins
FIRST_FIFTH = 0.2  # of training, where it ends
