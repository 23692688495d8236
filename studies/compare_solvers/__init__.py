"""The main job: solve the paper's design problem with every solver, prove which answer is best, and compare."""
