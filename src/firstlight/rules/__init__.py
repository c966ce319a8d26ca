"""What each operation does to a signal, forward and adjoint side by side; no torch, no graph walking.

Importing the package registers every rule.
"""

from firstlight.rules import (
    affine as affine,
)
from firstlight.rules import (
    attention as attention,
)
from firstlight.rules import (
    cells as cells,
)
from firstlight.rules import (
    choice as choice,
)
from firstlight.rules import (
    composed as composed,
)
from firstlight.rules import (
    concatenation as concatenation,
)
from firstlight.rules import (
    convolution as convolution,
)
from firstlight.rules import (
    custom as custom,
)
from firstlight.rules import (
    elementwise as elementwise,
)
from firstlight.rules import (
    extremes as extremes,
)
from firstlight.rules import (
    lookup as lookup,
)
from firstlight.rules import (
    merge as merge,
)
from firstlight.rules import (
    normalization as normalization,
)
from firstlight.rules import (
    ordering as ordering,
)
from firstlight.rules import (
    packing as packing,
)
from firstlight.rules import (
    pooling as pooling,
)
from firstlight.rules import (
    products as products,
)
from firstlight.rules import (
    recurrent as recurrent,
)
from firstlight.rules import (
    reduction as reduction,
)
from firstlight.rules import (
    resampling as resampling,
)
from firstlight.rules import (
    routing as routing,
)
from firstlight.rules import (
    selection as selection,
)
from firstlight.rules import (
    softmax as softmax,
)
from firstlight.rules import (
    spectral as spectral,
)
from firstlight.rules import (
    stochastic as stochastic,
)
from firstlight.rules import (
    structural as structural,
)
from firstlight.rules.registry import Call as Call
from firstlight.rules.registry import Rule as Rule
from firstlight.rules.registry import find as find
from firstlight.rules.registry import rule as rule
from firstlight.rules.registry import table as table
