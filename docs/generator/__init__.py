"""The parts of the documentation site that are generated: a page for every name, formulas and links."""
