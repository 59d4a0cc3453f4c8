"""What a device reports of the model it uses."""

from __future__ import annotations

from edge.protocol.messages import Moments, Served, Serving


def serving(mean: float, std: float = 1.0, count: int = 500) -> Serving:
    """Statistics of the inputs ``wind``, first at 5 +- 1 and now at ``mean``, and ``temperature``,
    which stays.
    """
    wind = Served(name="wind", first=Moments(500, 5.0, 1.0), recent=Moments(count, mean, std))
    still = Served(
        name="temperature", first=Moments(500, 1.0, 1.0), recent=Moments(count, 1.0, 1.0)
    )
    return Serving(predictions=1000, inputs=[wind, still])
