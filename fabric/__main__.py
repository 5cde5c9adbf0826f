"""``python -m fabric``."""

from fabric.cli.main import main

if __name__ == "__main__":
    main()
