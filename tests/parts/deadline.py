"""How long tests wait for what has to happen: it bounds a hang, not a speed, however busy the machine is."""

DEADLINE_S = 100.0
