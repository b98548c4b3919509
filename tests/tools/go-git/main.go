// go-git: clones URL with KEY into DIR, commits FILE with CONTENT, pushes main.
//
// What the server says goes to stdout; a push that is refused ends the program with 1 and the reason.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"golang.org/x/crypto/ssh"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(url, key, dir, name, content string) error {
	auth, err := gitssh.NewPublicKeysFromFile("git", key, "")
	if err != nil {
		return err
	}
	auth.HostKeyCallback = ssh.InsecureIgnoreHostKey() // the test's own server on loopback
	main := plumbing.NewBranchReferenceName("main")
	repository, err := git.PlainClone(dir, false, &git.CloneOptions{URL: url, Auth: auth, ReferenceName: main})
	if err != nil {
		return err
	}
	worktree, err := repository.Worktree()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		return err
	}
	if _, err := worktree.Add(name); err != nil {
		return err
	}
	ada := &object.Signature{Name: "Ada", Email: "ada@example.com", When: time.Unix(1767323045, 0)}
	if _, err := worktree.Commit("with go-git", &git.CommitOptions{Author: ada}); err != nil {
		return err
	}
	return repository.Push(&git.PushOptions{Auth: auth, Progress: os.Stdout})
}
