"""Settings, read once by the flow and passed down."""
