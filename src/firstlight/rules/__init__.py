"""What each operation does to a signal, forward and adjoint side by side; no torch, no graph walking.

Importing the package registers every rule of every file below it. Three folders hold what rules share (`state`,
`chains`, `gradients`), the others the operations by kind; each folder's first line says which.
"""

import pkgutil
from importlib import import_module

from firstlight.rules.registry import Call as Call
from firstlight.rules.registry import Rule as Rule
from firstlight.rules.registry import find as find
from firstlight.rules.registry import rule as rule
from firstlight.rules.registry import table as table

for _module in pkgutil.walk_packages(__path__, prefix=f"{__name__}."):
    import_module(_module.name)
