"""How far apart outputs of classifiers and other networks are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..engine.comparison import ComparedOutput


@dataclass(frozen=True)
class NetworkOutput(ComparedOutput):
    """How far apart an output of two networks is, over all samples; in addition to the attributes of `ComparedOutput`:

    Attributes
    ----------
    psnr_db : float
        Peak signal-to-noise ratio: the square of the largest magnitude divided by the mean of squared differences.
    top_1, top_5 : float or None
        For a class label or class probabilities: the fraction of the samples for which the first network's best class
        is also the second's, or among its best five; None for other outputs.
    """

    psnr_db: float
    top_1: float | None = None
    top_5: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        values = super().to_dict()
        return values | {"psnr_db": self.psnr_db if math.isfinite(self.psnr_db) else None}

    def __str__(self) -> str:
        agreement = [
            f"top {k} agreement {100 * part:.1f} %"
            for k, part in ((1, self.top_1), (5, self.top_5))
            if part is not None
        ]
        if math.isnan(self.snr_db):
            return f"output {self.name}: {', '.join(agreement)}"
        ratio = "exact" if self.psnr_db == math.inf else f"{self.psnr_db:.1f} dB"
        return ", ".join([super().__str__(), f"peak {ratio}", *agreement])
