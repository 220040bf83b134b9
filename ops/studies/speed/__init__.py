"""`on-time bench`: the speed of the service and of scoring, beside what each is compared with."""
