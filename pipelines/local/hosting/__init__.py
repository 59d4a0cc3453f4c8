"""What a cloud that outlives its starter does by itself: it brings up the devices that runs and
rollouts want, starts queued runs when their fleet is free, and ends once it is idle.
"""
