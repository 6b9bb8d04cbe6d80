"""What XLA:CPU needs to be right and fast: a guard, rounding points, sums, branches and convolutions.

Nothing here knows of plasticity. Import from the submodules; this package imports nothing itself, so that
`import pliant` stays fast.
"""
