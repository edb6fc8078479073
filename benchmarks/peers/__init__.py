"""What others use today, each set up as its own documentation recommends.

These run in the interpreter that `--peers` names, where the peers are installed; so
they import neither bwpool nor anything of the benchmarks but each other.
"""
