"""What is read and written back: file trees with all their metadata, walked by directory handles.

It must not know of vaults.
"""
