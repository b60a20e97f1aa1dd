"""``python -m proxycoop`` does the same as the command ``proxycoop``."""

from proxycoop.training.commands.cli import main

if __name__ == "__main__":
    main()
