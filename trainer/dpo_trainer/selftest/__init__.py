"""What is proven about a run before its first update, under every engine.

Each check looks for one way in which quantised preference training goes wrong without a word.
"""
