"""Run LocalStack in this process, listening on the loopback address only.

LocalStack hands nothing but the port of GATEWAY_LISTEN to its web server and so would listen on every interface.
Runs in LocalStack's own environment, not in the project's.
"""

import functools
import os
import tempfile

from twisted.internet import endpoints

tempfile.tempdir = os.environ["HEADRACE_LOCALSTACK_TMP"]
endpoints.TCP4ServerEndpoint = functools.partial(endpoints.TCP4ServerEndpoint, interface="127.0.0.1")

from localstack.runtime.main import main  # noqa: E402  (it must see the two lines above)

main()
