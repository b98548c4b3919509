// ssh-idle: logs in to ADDR as USER with KEY, COUNT times, and lets the connections stand until standard input ends.
//
// One line on standard output says when all of them stand. Forty log in at a time, so that no server takes it for a flood.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const atATime = 40

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(addr, user, keyFile, countText string) error {
	count, err := strconv.Atoi(countText)
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	key, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		return err
	}
	config := &ssh.ClientConfig{
		Config:          ssh.Config{KeyExchanges: []string{ssh.KeyExchangeCurve25519}},
		User:            user,
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // the benchmark's own servers on loopback
	}
	var ended sync.WaitGroup
	places := make(chan struct{}, atATime)
	logins := make(chan error, count)
	for range count {
		places <- struct{}{}
		ended.Go(func() {
			logins <- login(addr, config)
			<-places
		})
	}
	ended.Wait()
	for range count {
		if err := <-logins; err != nil {
			return err
		}
	}
	fmt.Printf("%d connections stand\n", count)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func login(addr string, config *ssh.ClientConfig) error {
	tcp, err := net.DialTimeout("tcp", addr, 30*time.Second)
	if err != nil {
		return err
	}
	connection, channels, requests, err := ssh.NewClientConn(tcp, addr, config)
	if err != nil {
		return err
	}
	// answers what the server asks to see whether its client is there
	go ssh.DiscardRequests(requests)
	go func() {
		for range channels {
		}
	}()
	go func() {
		if err := connection.Wait(); err != nil {
			fmt.Fprintln(os.Stderr, "a connection ended:", err)
			os.Exit(1)
		}
	}()
	return nil
}
