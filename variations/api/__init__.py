"""The Flux Redux Dev API as seen from here: client, answers, retry rules, request history."""
