"""Does a model that says 70 % turn out right 70 % of the time?"""

import numpy as np
import pandas as pd


def calibration(confidence, correct, bins: int = 15) -> pd.DataFrame:
    """Reliability table over `bins` equal intervals of confidence (0, 1]; one row a bin that holds
    tokens.

    Columns: low, high, tokens, confidence (mean in the bin), accuracy, stderr (binomial, of the
    accuracy)."""
    confidence, correct = (np.asarray(x, dtype=np.float64) for x in (confidence, correct))
    if confidence.shape != correct.shape:
        raise ValueError(
            f"shapes {confidence.shape} and {correct.shape} differ: give both over the same tokens"
        )
    if bins < 1 or not confidence.size or not np.isfinite(confidence).all():
        raise ValueError(
            f"{confidence.size} confidences in {bins} bins, or some that are NaN or infinite, "
            "tell nothing: give at least one of each, all finite"
        )
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    tokens = np.bincount(bin_of, minlength=bins)
    kept = np.flatnonzero(tokens)
    accuracy = np.bincount(bin_of, weights=correct, minlength=bins)[kept] / tokens[kept]
    return pd.DataFrame(
        {
            "low": kept / bins,
            "high": (kept + 1) / bins,
            "tokens": tokens[kept],
            "confidence": np.bincount(bin_of, weights=confidence, minlength=bins)[kept]
            / tokens[kept],
            "accuracy": accuracy,
            "stderr": np.sqrt(accuracy * (1 - accuracy) / tokens[kept]),
        }
    )


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Mean |accuracy - confidence| over tokens, from a `calibration` table (Naeini et al. 2015; Guo
    et al. 2017)."""
    return float(
        np.average((table["accuracy"] - table["confidence"]).abs(), weights=table["tokens"])
    )
