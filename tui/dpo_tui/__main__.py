"""`python -m dpo_tui` is `dpo-tui`."""

from dpo_tui.cli import main

main()
