"""Quality flags of positions and times, as In Situ TAC, Argo and OceanSITES give them (reference table 2).

0 is no quality control, 1 good, 2 probably good; fixes with any other flag are not used.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Shaped

from driftcal.preprocess.sources.encoding import MISSING, decode, texts
from driftcal.shared.errors import DataError

FLAGS = {
    "position_qc": "position flagged as bad",
    "latitude_qc": "position flagged as bad",
    "longitude_qc": "position flagged as bad",
    "time_qc": "time flagged as bad",
}
"""Roles of flags, and why a fix is dropped by them."""

ADVICE = (
    "Their quality flags are other than 0, 1 and 2 (no control, good, probably good). If the flags mean something else "
    "in these files, remove them there."
)
"""Advice on fixes that are dropped by their flags."""

USED = (0, 1, 2)


def bad(values: Shaped[np.ndarray, "*shape"], attributes: Mapping[str, Any], where: str) -> Bool[np.ndarray, "*shape"]:
    """Marks flags that say not to use a value; a missing flag says nothing. Bool, of the same shape.

    Raises:
        DataError: Text that is no flag of that table.
    """
    if values.dtype.kind in "iuf":
        flags = np.asarray(decode(values, attributes, where), np.float64)
    else:
        words = pd.Series(texts(values.ravel()), dtype=object)
        flags = pd.Series(pd.to_numeric(words, errors="coerce")).to_numpy(np.float64)
        invalid = pd.Series(words[np.isnan(flags) & ~words.str.lower().isin(MISSING)])
        if len(invalid):
            raise DataError(
                f"{where} holds {invalid.iloc[0]!r}; expected flags of quality from 0 to 9, of which 0, 1 and 2 are "
                "used. Write them so, or give the variable another name and it is not looked at."
            )
    return ~(np.isin(flags, USED) | np.isnan(flags)).reshape(values.shape)
