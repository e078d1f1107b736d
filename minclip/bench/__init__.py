"""`minclip bench`: how fast a checkpoint runs on this machine, beside what the machine can do and what others do on it.

`sections` measures, a function for each part of the table; `starts` measures whole processes, `memory` those of a model
of 1.9 billion parameters, `growth` how the cost grows. They stand on `peers` (who else computes the same towers),
`measure` (competitors take turns), `machine` (what it is and what it can do at most), `flops` (what a tower has to do)
and `random_models`. `report` prints the table and `plot` draws.
"""
