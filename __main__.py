"""python -m callboard"""

from .runtime.cli import main

main()
