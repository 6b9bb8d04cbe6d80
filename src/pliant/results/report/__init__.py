"""One page with everything that runs have stored: `pliant report` writes it, `pliant watch` serves it meanwhile."""

from pliant.results.report._page import content_html, report_html
from pliant.results.report._watch import WatchServer, watch_server

__all__ = ["WatchServer", "content_html", "report_html", "watch_server"]
