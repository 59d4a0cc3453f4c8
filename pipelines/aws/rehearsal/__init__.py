"""A deployment played without an account: what AWS would make of the templates, the functions' code
and the images, as far as documentation and service models say it.
"""
