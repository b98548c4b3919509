"""libgit2 over libssh2: clones URL with KEY into DIR, commits FILE with CONTENT, pushes main.

What the server says goes to stdout; a ref that is refused ends the program with 1 and the reason.
"""

import sys

import pygit2


class Callbacks(pygit2.RemoteCallbacks):
    def __init__(self, key):
        super().__init__()
        self.key = key
        self.refused = []

    def credentials(self, url, username_from_url, allowed_types):
        return pygit2.Keypair(username_from_url or "git", self.key + ".pub", self.key, "")

    def certificate_check(self, certificate, valid, host):
        return True

    def sideband_progress(self, string):
        sys.stdout.write(string)

    def push_update_reference(self, refname, message):
        if message is not None:
            self.refused.append(f"{refname}: {message}")


def main(url, key, directory, name, content):
    callbacks = Callbacks(key)
    repository = pygit2.clone_repository(url, directory, callbacks=callbacks)
    with open(f"{directory}/{name}", "w", encoding="utf-8") as file:
        file.write(content)
    repository.index.add(name)
    repository.index.write()
    author = pygit2.Signature("Ada", "ada@example.com", 1767323045, 0)
    tree = repository.index.write_tree()
    repository.create_commit("HEAD", author, author, "with libgit2", tree, [repository.head.target])
    repository.remotes["origin"].push(["refs/heads/main:refs/heads/main"], callbacks=callbacks)
    if callbacks.refused:
        sys.exit("\n".join(callbacks.refused))


main(*sys.argv[1:])
