"""What is logged above `info` in the runs in which that is right."""

from __future__ import annotations

from tests.simulation.script import Deed, Fault

_OTHER_ROLE = r"not let in|content refused.*may only read|and now it may write"

EXCUSED: dict[Fault | Deed, str] = {
    Deed.GORGE: r"content refused.* bytes",
    Fault.FULL: r"content refused.*(no space left|the quota is used up|the disk )|taking nothing in"
    r"|not recovered yet|there was no room for what it sent|cannot keep evidence yet"
    r"|compaction interrupted.*no space left",
    Fault.COPY: r"our own log (was longer|is back|cannot be read)|our log goes on as a new fork",
    Fault.BAN: r"not let in",
    Fault.CLOCK: _OTHER_ROLE,
    Fault.ROLE: _OTHER_ROLE,
    Deed.FORK: r"(content refused.*bad signature on|session forked)",
}
"""What is logged above `info` when a run has one of these."""

WITHOUT_KEEPERS = r"clients wait for copies that no member makes"
"""And when a node wants two copies: who would keep the second may be shut out, or cut off."""
