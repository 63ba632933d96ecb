"""What runs inside a release: a small server that scores with the model beside it.

Shipped in the base as the package ``mlpack_runtime``; it imports the standard
library, numpy, onnxruntime, orjson, starlette and uvicorn, and nothing of
mlpack. Start it with ``python -m mlpack_runtime``.
"""
