"""``chicory demo``: the main job on something real, with a worker killed on the way."""
