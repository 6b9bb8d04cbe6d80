"""Everything that can be run: streams of tasks, and agents in environments."""

from pliant.problems._diagnose import diagnose_run
from pliant.problems._plan import Config, folder_for, kind_of, make_plan, plan_suited, settings_in_use

__all__ = ["Config", "diagnose_run", "folder_for", "kind_of", "make_plan", "plan_suited", "settings_in_use"]
