"""The only owner of listening sockets."""
