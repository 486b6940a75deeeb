"""`python -m trimtab.cli`: for processes that must find the command line without a script on the PATH."""

from trimtab.cli.main import main

main()
