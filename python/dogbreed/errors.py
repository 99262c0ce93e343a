"""The errors that a person can mend: what is wrong and what to do, in one line."""

from __future__ import annotations


class DogbreedError(Exception):
    """A mistake in what the user gave us, or in the state of their machine.

    The command line prints it as one line and exits with status 1; anything else that is raised is our own defect.
    """

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem.rstrip('.')}. {fix}")
        self.problem = problem
        self.fix = fix
