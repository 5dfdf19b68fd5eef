"""Nothing here is a test, and the scripts import each other from the folder they are started in."""

collect_ignore_glob = ["*.py"]
