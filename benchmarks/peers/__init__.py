"""What ksmd's merging scan looks like if one just writes it down: in Python with a dict, in C++ with the standard maps.

The rules are those of Linux 6.12 with merge_across_nodes = 1, smart_scan = 0, use_zero_pages = 0 and as many mappings of a KSM
page as there are pages, which is where trees of contents are all there is to know. No peer knows more.
"""
