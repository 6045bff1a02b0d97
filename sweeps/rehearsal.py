"""A dry run: everything a start would refuse, and what the sweep will cost. Nothing starts; only the cache is written.

The one thing left out, because it can take long, is to decode a large data set: its images are counted, not looked at.
"""

from __future__ import annotations

from dataclasses import replace

from repsim.data.sources import count_images
from sweeps.cluster_check import check_cluster
from sweeps.disk import check_room
from sweeps.estimate import estimate
from sweeps.mirror import OFF, check_free
from sweeps.preflight import preflight
from sweeps.request import Launch
from sweeps.slots import Slots, check_gpus
from sweeps.space import Space
from sweeps.space_resource_settings import sizes
from sweeps.tracking_uri import resolve_tracking_uri

FEW_IMAGES = 500
"""So many are decoded in seconds."""


def rehearse(launch: Launch) -> list[str]:
    """The resolved space and its cost, in lines; RequestError, with every mistake found, when it would not start."""
    space, lines = launch.space, list[str]()
    resolve_tracking_uri(launch.tracking_uri)
    if launch.storage not in (None, OFF):
        check_free(str(launch.storage), launch.name)
    if launch.address is None:
        check_gpus(space)
    else:
        launch = replace(launch, machines=check_cluster(launch.address, space, launch.runs_dir))
    n_images = {source: count_images(source) for source in space.data}
    unseen = [source for source, count in n_images.items() if count > FEW_IMAGES]
    looked = preflight(space, cache_dir=launch.cache_dir, say=lines.append, unseen=unseen)
    slots = launch.slots
    cost = estimate(space, n_images, slots.parallel, parameters=looked.parameters)
    check_room(launch.runs_dir, cost.run_bytes)
    lines += [space.describe(), _slots_text(space, slots), *cost.lines()]
    return lines + [f"not looked at: the {n_images[source]} images of {source}" for source in unseen]


def _slots_text(space: Space, slots: Slots) -> str:
    text = f"slots: {slots.parallel} at a time, {slots.threads} threads each"
    workers = sorted({asked.workers for _, _, asked in sizes(space)})
    return text if workers == [1] else f"{text}, {' or '.join(map(str, workers))} workers a trial"
