"""A seeded, bounded chaos run: server processes that are killed, an upstream with every fault, and a judge.

    scripts/chaos --seed 7
    scripts/chaos --database postgresql --seed 7

`plan` draws from the seed what will happen, `faults` has what can go wrong upstream, `databases` is where the jobs are
kept, `windows` keeps the server processes, `witness` stands in front of the upstream and kills, `drive` runs it all,
`judge` compares how each job ended with what the upstream's log says.
"""
