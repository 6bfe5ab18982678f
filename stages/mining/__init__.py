"""Mining: nearest neighbours, and which of them are hard negatives."""
