"""The letters of a figure, for tests of its legibility."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

COLUMN = 3.25
"""Width of a column of a paper, in inches."""


def smallest_text(figure):
    """Points of the smallest text that is drawn, where the figure is as wide as a column."""
    FigureCanvasAgg(figure).draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return min(text.get_fontsize() for text in texts) * COLUMN / figure.get_figwidth()
