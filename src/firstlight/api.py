"""The verbs: orchestration only; the work is done on the floors below."""

from __future__ import annotations
