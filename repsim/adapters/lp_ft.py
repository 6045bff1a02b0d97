"""LP-FT: a linear probe to convergence becomes the head's start, then everything is trained (arXiv 2202.10054).

A random head pulls the pretrained features about in the first steps, before it has learned anything; a converged one
does not. That is also why the head learns at the backbone's rate here, and not ten times faster as a new one does.
"""

from __future__ import annotations

from dataclasses import replace

from repsim.adapters.full import FULL

LP_FT = replace(FULL, fit="probed_gradient")
