"""What the exercises of the notebooks call: a worked example to count by hand, solutions, and checkers.

A checker takes what the reader wrote and returns a Verdict, which a notebook shows as a sentence. It never
raises: a stub that raises NotImplementedError, an error inside the reader's function and a wrong answer are
all answered in words, and the usual mistakes are recognised by the number they lead to.
``show.source(exercises.forgetting_solution)`` displays a solution.
"""

# ruff: noqa: F401  (names for the notebooks)
from clkit.book.exercises.nb00 import average_solution, check_average, check_final_classes
from clkit.book.exercises.nb01 import (
    check_forgetting,
    check_one_over_t,
    check_reservoir,
    finetuned,
    forgetting_solution,
    reservoir_solution,
    worked_example,
)
from clkit.book.exercises.nb02 import (
    check_fisher,
    check_herding,
    check_stronger,
    fisher_solution,
    herding_solution,
)
from clkit.book.exercises.nb03 import check_grow, check_room, grow_solution, one_by_one
from clkit.book.exercises.nb04 import (
    check_divergence,
    check_diversity,
    check_recalled,
    divergence_solution,
    diversity_solution,
)
from clkit.book.exercises.verdict import Verdict
