"""The rows of the audit log."""

from __future__ import annotations

from .kinds import Path
from .row import Flag, Setting
from .rows import count, limit

AUDIT_LOG = Setting(
    "audit_log",
    Path(),
    None,
    "A file that gets a line of JSON for each admission, each refusal and each change by a program or a viewer, "
    "without tokens. Lines are added to it. A reload opens it again, so that it can be renamed.",
    special=(("None", "no audit log"),),
    flag=Flag("audit-log", "a file that gets a line of JSON for each admission and each refusal", metavar="FILE"),
)

AUDIT_LIMITS = (
    limit(
        "audit_queue",
        count(),
        4_096,
        "Records that wait for `audit_log`. Further ones are dropped, counted and told by the log.",
        "A tenth of a second at the highest rate of new connections; a record takes half a kilobyte.",
    ),
)
