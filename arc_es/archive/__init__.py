"""Commands that ended long ago, in files beside the stream instead of in it."""
