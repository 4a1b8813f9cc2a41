"""What an expert concludes from the numbers of a run; one small module a rule.

The same rules warn live, diagnose a foreign log headlessly and explain what was found.
"""
