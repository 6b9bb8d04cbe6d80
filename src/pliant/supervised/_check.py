"""What a configuration says, checked before anything that it names is made."""

from pliant.errors import require_range
from pliant.supervised._config import RunConfig
from pliant.training import check_protocol


def check(config: RunConfig) -> None:
    """Kinds, ranges and names of what a configuration says."""
    check_protocol(config)
    require_range("epochs", config.epochs, 1, do=f"Leave it out for {RunConfig.epochs}.")
    require_range("transition_share", config.transition_share, 0, 1, do="Use a fraction such as 0.5.")
    require_range("steps", config.steps, 1, do="Leave it out to count in epochs.")
