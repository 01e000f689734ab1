"""Reports by name: from rows that the office has gathered to one ``Report``, and from that to text, CSV, JSON and HTML.

Nothing here asks a clock, reads a table or opens a connection; gathering is the office's. ``catalogue.REPORTS`` lists all reports; each is a
function in a module of what it is about. File names and server names are what anybody may have made of them: whatever
writes a format escapes all of it.
"""
