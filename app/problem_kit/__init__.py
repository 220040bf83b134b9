"""The types with which app/problem is declared: requests, outcomes, features; it imports nothing of ours."""
