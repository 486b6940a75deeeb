"""kubectl, as a user runs it, against a test cluster."""

import asyncio
import os
import tempfile
from typing import Any


async def kubectl(cluster: Any, *arguments: str, stdin: str = "") -> str:
    """Run kubectl and return what it prints.

    Raises:
        AssertionError: it failed; the message is what it said.
    """
    program = await asyncio.to_thread(cluster.program, "kubectl")
    # kubectl remembers for hours, by address, which resources there are: another cluster's, or those of a minute ago.
    with tempfile.TemporaryDirectory() as cache:
        process = await asyncio.create_subprocess_exec(
            str(program),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"KUBECONFIG": str(cluster.kubeconfig), "KUBECACHEDIR": cache},
        )
        output, complaint = await process.communicate(stdin.encode())
    assert process.returncode == 0, f"kubectl {' '.join(arguments)}: {complaint.decode()}"
    return output.decode()
