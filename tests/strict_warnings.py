"""IPython start-up file of the notebook tests: deprecation warnings of clkit and of the cells are errors.

`make test` copies it into a profile of its own. Pytest's filters do not reach a notebook's kernel, and
IPython replaces those given on the command line, so this is the place where such a filter holds.
"""

import warnings

for _category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
    warnings.filterwarnings("error", category=_category, module=r"(__main__|clkit(\..*)?)$")
