"""Jobs of Processing and Training steps, as processes of this machine.

A job sees SageMaker's own folders (``/opt/ml``) and environment. Where the kernel allows a private
mount namespace the folders lie at their own paths, whatever else runs; where it does not, paths in
commands and variables lead to them. docs/decisions/0047 says why no container is run.
"""
