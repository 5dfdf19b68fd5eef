"""Moving frames to another node; what becomes of the stable node of a KSM page is the policy, one file each."""
