"""Files that people have, as rows of text cells: the one way in for bills, logs and traces.

`Source` unpacks a file by its first bytes, `tables` finds its columns, and a table's rows are
streamed. Memory does not grow with the file.
"""
