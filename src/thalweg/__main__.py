"""`python -m thalweg`: the command `thalweg`."""

from thalweg.cli.main import main

raise SystemExit(main())
