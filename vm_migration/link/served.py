"""What a servicer's method is given beside its request."""

import grpc.aio

Context = grpc.aio.ServicerContext[object, object]
