"""Units, and which of them are the same."""

import numpy as np

from pliant.tracing._labels import NONE, Labels, merged


class Units:
    """Units that are the same since their values are added or multiplied one to one."""

    def __init__(self) -> None:
        self._same = np.zeros(0, np.int64)

    def new(self, number: int) -> Labels:
        """So many units more."""
        fresh = np.arange(len(self._same), len(self._same) + number)
        self._same = np.concatenate([self._same, fresh])
        return fresh

    def find(self, labels: Labels) -> Labels:
        """One label for all that are the same."""
        while not (self._same[self._same] == self._same).all():
            self._same = self._same[self._same]
        if not len(self._same):
            return labels
        return np.where(labels == NONE, NONE, self._same[np.maximum(labels, 0)])

    def joined(self, first: Labels, second: Labels) -> Labels:
        """The labels of what is computed from both, entry by entry.

        Units that meet one to one become the same. Where one of many meets each of few, as a gate does, the many stay.
        """
        a, b = np.broadcast_arrays(self.find(first), self.find(second))
        both = (a != NONE) & (b != NONE) & (a != b)
        if not both.any():
            return merged(self.find(first), self.find(second))
        total = len(self._same)
        pairs = np.stack(np.divmod(np.unique(a[both] * total + b[both]), total), axis=1)
        num_first, num_second = len(np.unique(pairs[:, 0])), len(np.unique(pairs[:, 1]))
        if num_first == num_second == len(pairs):
            for one, other in pairs:
                self._join(int(one), int(other))
            return self.find(merged(a, b))
        if len(pairs) == num_second:
            return merged(b, a)
        if len(pairs) == num_first:
            return merged(a, b)
        return np.where(both, NONE, merged(a, b))

    def join_rows(self, rows: Labels) -> None:
        """Makes the units of each row the same."""
        for row in rows.tolist():
            for unit in row[1:]:
                self._join(row[0], unit)

    def _join(self, one: int, other: int) -> None:
        roots = []
        for each in (one, other):
            while self._same[each] != each:
                each = int(self._same[each])
            roots.append(each)
        self._same[max(roots)] = min(roots)
