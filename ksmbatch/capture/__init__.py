"""`ksmbatch capture`: the memory of a live Linux machine to a trace, without contents and without any change to the machine.

`session` leads through it: `processes` are found, their `mappings` chosen, pages looked up (`pagemap`), read (`memory`),
turned into `fingerprint`s and compared with the round before (`follower`), at a `pace`; `finish` writes the trace.
docs/privacy.md says what that trace reveals.
"""
