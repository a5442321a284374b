"""Compares clew with other ways of learning a maze: every rival plays the same held-out mazes."""
