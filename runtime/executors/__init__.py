"""Where a task's function runs: on the event loop, in a thread, or in a process of its own (see contract.py).

Imports nothing: a child process passes through here on its way to process_child.py.
"""
