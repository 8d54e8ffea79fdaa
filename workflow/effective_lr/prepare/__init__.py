"""Raw files of a dataset become checked tensors and a record of what they are."""
