"""Puts learners and actors together, starts and ends them; and holds what every process of clew needs."""
