"""The tests: app, stages and ops mirror the packages; the others are about more than one module.

service: the real service under traffic; pipeline: the stages in a clone; adapt: the second problem; ray: the engine
`ray`; system: containers, workflows and whole stacks.
"""

from app import environment

environment.apply()  # as a program does, before LightGBM is loaded
