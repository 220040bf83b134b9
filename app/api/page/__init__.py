"""The page at `/`: a form for a prediction, facts of the served model, and the last minutes of the service.

`static/` is plain HTML, CSS and JavaScript without a build step. The form is made from the problem's request schema.
"""
