"""One contender each: ``NAME.py`` runs in the environment that ``NAME.txt`` describes."""
