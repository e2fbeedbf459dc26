"""Small ranges of many objects into large ones of few: plan.py decides what, compactor.py does it."""
