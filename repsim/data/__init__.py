"""Images: where they come from, decoded once into a memory-mapped cache, split, and seen in finite seeded views."""

from __future__ import annotations

from repsim.data.dataset import ImageSet, load_images
from repsim.data.sources import count_images

__all__ = ["ImageSet", "count_images", "load_images"]
