"""Policy `mainline`: a KSM page that moves keeps its stable node, which stays in the tree of the old node until ksmd comes
around.

So there is nothing to do when it moves (folio_migrate_ksm() rewrites kpfn). Whether and when ksmd notices is in `merge` and
`stable_tree`, for a node whose nid is not that of its frame is something that no other policy leaves behind.
"""
