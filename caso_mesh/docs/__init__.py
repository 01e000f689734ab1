"""The manual that ships with the product. Tests keep it true.
"""
