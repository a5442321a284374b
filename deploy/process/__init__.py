"""How a learner or an actor is put together, lives and ends, and what every process of clew needs."""
