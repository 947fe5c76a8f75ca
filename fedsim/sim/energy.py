"""How long was each part of a device at work for an assignment? Time spans become joules at its end.

Absences of a paused device cost nothing here: what a radio or a processor does for others is not ours.
"""

from dataclasses import dataclass, field

from fedsim.method.messages import Phase
from fedsim.world.energy import DevicePower


@dataclass(slots=True)
class Spans:
    """Seconds at work of one assignment, by phase; phases may overlap."""

    _since_s: dict[Phase, float] = field(default_factory=dict)
    _worked_s: dict[Phase, float] = field(default_factory=dict)

    def begin(self, phase: Phase, time_s: float) -> None:
        """A phase begins."""
        self._since_s[phase] = time_s

    def end(self, phase: Phase, time_s: float) -> None:
        """A phase ends, if it has begun."""
        since_s = self._since_s.pop(phase, None)
        if since_s is not None and time_s > since_s:
            self._worked_s[phase] = self._worked_s.get(phase, 0.0) + (time_s - since_s)

    def pause(self, time_s: float, resumes_at_s: float) -> None:
        """The device leaves; whatever it was at goes on when it is back."""
        for phase in list(self._since_s):
            self.end(phase, time_s)
            self.begin(phase, resumes_at_s)

    def close(self, time_s: float) -> None:
        """Nothing goes on any more."""
        for phase in list(self._since_s):
            self.end(phase, time_s)

    def joules(self, power: DevicePower, bytes_down: int, bytes_up: int) -> dict[Phase, float]:
        """Energy by phase."""
        worked = self._worked_s
        return {
            "download": power.download_j(worked.get("download", 0.0), bytes_down),
            "train": power.train_j(worked.get("train", 0.0)),
            "upload": power.upload_j(worked.get("upload", 0.0), bytes_up),
        }
