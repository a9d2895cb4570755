"""Run seeded, bounded chaos: server processes are killed, the provider has every fault, and a judge decides.

    scripts/chaos --seed 7
    scripts/chaos --database postgresql --seed 7

`plan` draws from the seed what will happen, `faults` lists the faults of the provider, `databases` stores the jobs,
`windows` keeps the server processes, `witness` watches the requests to the provider and kills, `drive` runs it all, and
`judge` compares the end of each job with the provider's log.
"""
