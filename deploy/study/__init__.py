"""Studies a run: tries its policy in mazes, scores every attempt, and draws pictures."""
