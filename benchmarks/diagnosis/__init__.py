"""Small networks with known fates: do the checks find the ones that never start, and say why?"""
