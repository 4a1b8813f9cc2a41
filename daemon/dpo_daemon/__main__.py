"""`python -m dpo_daemon` is `dpo-daemon`."""

from dpo_daemon.cli import main

main()
