"""Run LocalStack in this process, listening on the loopback address only.

LocalStack hands nothing but the port of GATEWAY_LISTEN to its web server and so would listen on every interface. And it
would download DynamoDB Local from where no package registry is; it is given the one that HEADRACE_DYNAMODB_COMMAND, a
JSON list, starts. Runs in LocalStack's own environment, not in the project's.
"""

import functools
import json
import os
import tempfile

from twisted.internet import endpoints

tempfile.tempdir = os.environ["HEADRACE_LOCALSTACK_TMP"]
endpoints.TCP4ServerEndpoint = functools.partial(endpoints.TCP4ServerEndpoint, interface="127.0.0.1")

command = json.loads(os.environ.get("HEADRACE_DYNAMODB_COMMAND", "null"))
if command:
    from localstack.services.dynamodb.packages import DynamoDBLocalPackageInstaller
    from localstack.services.dynamodb.server import DynamodbServer

    DynamoDBLocalPackageInstaller.install = lambda self, *args, **kwargs: None
    DynamoDBLocalPackageInstaller.get_java_env_vars = lambda self: {}
    DynamodbServer._create_shell_command = lambda self: [*command, "-port", str(self.port)]

from localstack.runtime.main import main  # noqa: E402  (it must see the lines above)

main()
