"""``python -m chicory``."""

from chicory.cli import main

if __name__ == "__main__":
    main()
