"""Dulwich over paramiko, git and SSH in Python alone: clones URL with KEY into DIR, commits FILE with CONTENT, pushes main.

What the server says goes to stdout; a ref that is refused ends the program with 1 and the reason.
"""

import sys
from urllib.parse import urlparse

import paramiko
from dulwich.client import SSHGitClient, SSHVendor
from dulwich.repo import Repo


class Session:
    """One command on the server, as dulwich wants its streams."""

    def __init__(self, client, command):
        self.client = client
        self.channel = client.get_transport().open_session()
        self.channel.exec_command(command.decode())
        self.stderr = self.channel.makefile_stderr("rb")

    def can_read(self):
        return self.channel.recv_ready()

    def write(self, data):
        self.channel.sendall(data)

    def read(self, size=None):
        data = b""
        while size is None or len(data) < size:
            piece = self.channel.recv((size - len(data)) if size else 65536)
            if not piece:
                break
            data += piece
        return data

    def close(self):
        self.channel.close()
        self.client.close()


class Paramiko(SSHVendor):
    def __init__(self, key):
        self.key = key

    def run_command(self, host, command, username=None, port=None, **_):
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(host, port=port, username=username, pkey=self.key, allow_agent=False, look_for_keys=False)
        return Session(client, command)


def show(data):
    sys.stdout.buffer.write(data)


def main(url, key, directory, name, content):
    address = urlparse(url)
    vendor = Paramiko(paramiko.Ed25519Key.from_private_key_file(key))
    client = SSHGitClient(address.hostname, address.port, address.username, vendor=vendor)
    repository = Repo.init(directory, mkdir=True)
    fetched = client.fetch(address.path, repository, progress=lambda text: None)
    repository.refs[b"refs/heads/main"] = fetched.refs[b"refs/heads/main"]
    repository.refs.set_symbolic_ref(b"HEAD", b"refs/heads/main")
    worktree = repository.get_worktree()
    worktree.reset_index()
    with open(f"{directory}/{name}", "w", encoding="utf-8") as file:
        file.write(content)
    worktree.stage([name])
    who = b"Ada <ada@example.com>"
    commit = worktree.commit(b"with dulwich", committer=who, author=who, commit_timestamp=1767323045, commit_timezone=0)
    result = client.send_pack(
        address.path,
        lambda refs: {b"refs/heads/main": commit},
        repository.generate_pack_data,
        progress=show,
    )
    refused = {ref: why for ref, why in (result.ref_status or {}).items() if why is not None}
    if refused:
        sys.exit("\n".join(f"{ref.decode()}: {why}" for ref, why in refused.items()))


main(*sys.argv[1:])
