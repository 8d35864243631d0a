"""The Lambda API: what tools for AWS ask of us, in AWS's own paths, shapes and words.

One file an idea: `operations` lists what is served, `call` is what an operation is given and gives, `errors` how it
refuses; the rest carries operations out, over the catalogue and what runs.
"""
