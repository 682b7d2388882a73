"""IPython start-up file of the notebook tests: deprecation warnings of clkit and of the cells are errors.

`make test` copies it into a separate profile. Pytest's filters do not reach a notebook's kernel, and IPython
replaces filters given on the command line, so only a start-up file can set them.
"""

import warnings

for _category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
    warnings.filterwarnings("error", category=_category, module=r"(__main__|clkit(\..*)?)$")
