"""Findings from evidence: one function per check, torch-free. Importing the package registers them all."""

from firstlight.checks import (
    arithmetic as arithmetic,
)
from firstlight.checks import (
    axes as axes,
)
from firstlight.checks import (
    backward as backward,
)
from firstlight.checks import (
    batch as batch,
)
from firstlight.checks import (
    bounds as bounds,
)
from firstlight.checks import (
    information as information,
)
from firstlight.checks import (
    laws as laws,
)
from firstlight.checks import (
    lengths as lengths,
)
from firstlight.checks import (
    start as start,
)
from firstlight.checks import (
    theory as theory,
)
from firstlight.checks import (
    units as units,
)
from firstlight.checks import (
    wiring as wiring,
)
from firstlight.checks import (
    zeros as zeros,
)
