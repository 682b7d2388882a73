"""Exercises of the notebooks: a worked example to count by hand, solutions, and checkers.

A checker takes the reader's answer and returns a Verdict, which is true or false and displays as a sentence.
It never raises: a stub, an error in the reader's function and a wrong answer all give a message, and common
mistakes are recognised by their values. ``grade({"average": check_average(average), ...})`` makes a table of
a whole submission. ``show.source(exercises.forgetting_solution)`` displays a solution.
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
from clkit.book.exercises.nb02 import check_fisher, check_stronger, fisher_solution
from clkit.book.exercises.nb03 import check_herding, herding_solution
from clkit.book.exercises.nb03_memory import check_exemplars
from clkit.book.exercises.nb04 import check_grow, check_room, grow_solution, one_by_one
from clkit.book.exercises.nb05 import (
    check_divergence,
    check_diversity,
    check_recalled,
    divergence_solution,
    diversity_solution,
)
from clkit.book.exercises.nb06 import (
    balance_solution,
    check_balance,
    check_gaussians,
    check_kept,
    gaussians_solution,
)
from clkit.book.exercises.nb07 import (
    check_class_diversity,
    check_outshouted,
    check_replayed,
    class_diversity_solution,
    outshouted_solution,
)
from clkit.book.exercises.nb08 import (
    check_gained,
    check_reserve,
    check_sparsity,
    reserve_solution,
    sparsity_solution,
)
from clkit.book.exercises.nb09 import check_linear_cka, check_similarity, linear_cka_solution
from clkit.book.exercises.nb10 import check_mask_bytes, check_widening, mask_bytes_solution
from clkit.book.exercises.verdict import Grades, Verdict, grade
