"""A day of a site, scripted, in the mesh simulator: twelve servers, three pools, forty lists, and a night in which much goes
wrong. What has to come of it is worked out beside the product, by plain means (``expected.py``), and compared.
"""
