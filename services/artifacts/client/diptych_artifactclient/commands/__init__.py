"""The commands, as classes that cliff makes; what they ask of the service is in `client`."""
