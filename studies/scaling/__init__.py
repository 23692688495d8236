"""How solvers scale: time to proof of every exact one, and loss of every heuristic at equal time, as the space grows."""
