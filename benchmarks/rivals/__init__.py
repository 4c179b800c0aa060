"""nnmeter_nas beside other tools that tell what a network costs: one table, ``docs/comparison.md``."""
