"""Files: written whole or not at all, stored in folders and buckets, read as polygons. One place for each."""
