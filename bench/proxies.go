package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// prefix is where the agent is found. Aviary strips it; the others pass it on, and the agent doesn't mind.
const prefix = "/agents/bench/"

// place is what a proxy's settings are made from.
type place struct {
	dir            string // for settings, logs and state
	listen, admin  string // host:port
	stable, canary string // host:port of the agents
}

// contestant is one proxy of the comparison.
type contestant struct {
	name    string
	program func(bin string) (string, error) // an error says why it is absent
	version []string                         // arguments that make it print its version
	// settings are the files to write, by name.
	settings func(p place) map[string]string
	args     func(p place) []string
	env      []string
	ready    func(p place, stop <-chan struct{}) error // called once when it answers; may go on in the background until stop
}

// running is a started proxy. Without a process it is the agent itself.
type running struct {
	addr string
	cmd  *exec.Cmd
	stop chan struct{}
}

// usage is the CPU time of the proxy and its descendants since their start.
func (r *running) usage() time.Duration {
	if r.cmd == nil {
		return 0
	}
	return cpu(r.cmd.Process.Pid)
}

// memory is that of the proxy and its descendants, in bytes.
func (r *running) memory() int64 {
	if r.cmd == nil {
		return 0
	}
	return memory(r.cmd.Process.Pid)
}

// start writes the settings, starts the proxy and waits until it answers.
func (c *contestant) start(program string, p place) (*running, error) {
	r := &running{addr: p.listen, stop: make(chan struct{})}
	if c.args == nil {
		r.addr = p.stable
		return r, nil
	}
	for name, text := range c.settings(p) {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("settings of %s: %w", c.name, err)
		}
	}
	log, err := os.Create(filepath.Join(p.dir, "log"))
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", c.name, err)
	}
	defer log.Close()
	r.cmd = exec.Command(program, c.args(p)...) //nolint:gosec // the programs are those of this file
	r.cmd.Stdout, r.cmd.Stderr, r.cmd.Dir = log, log, p.dir
	r.cmd.Env = append(append(os.Environ(), "GOMAXPROCS=2", "HOME="+p.dir, "XDG_DATA_HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir), c.env...)
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	if err := c.await(r, p); err != nil {
		raw, _ := os.ReadFile(log.Name())
		r.end()
		return nil, fmt.Errorf("%s: %w; it said: %s", c.name, err, bytes.TrimSpace(raw[max(0, len(raw)-2000):]))
	}
	return r, nil
}

func (c *contestant) await(r *running, p place) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		if one := closedLoop(r.addr, 1, time.Millisecond); one.requests > 0 {
			break
		}
		if time.Now().After(deadline) {
			return errors.New("no answer within 30 s")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if c.ready == nil {
		return nil
	}
	return c.ready(p, r.stop)
}

func (r *running) end() {
	close(r.stop)
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(5*time.Second, func() { _ = r.cmd.Process.Kill() })
	defer kill.Stop()
	_ = r.cmd.Wait()
}

// freeAddr is an address of this machine that nobody listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// inPath finds a program of the system, which bench/router.sh installs where it can.
func inPath(name string) func(string) (string, error) {
	return func(string) (string, error) {
		for _, n := range []string{name, "/usr/sbin/" + name} {
			if p, err := exec.LookPath(n); err == nil {
				return p, nil
			}
		}
		return "", errors.New("not installed")
	}
}

// built finds a program that was built into bin/, by a pattern.
func built(pattern string) func(string) (string, error) {
	return func(bin string) (string, error) {
		found, err := filepath.Glob(filepath.Join(bin, pattern))
		if err != nil || len(found) == 0 {
			return "", errors.New("not built")
		}
		return filepath.Abs(found[len(found)-1])
	}
}

// renew sets Aviary's route with a lease and renews it until stop, as the worker does.
func renew(p place, stop <-chan struct{}) error {
	put := func() error {
		body, err := json.Marshal(map[string]any{"stable": "v1", "canary": "v2", "weight": 500, "owner": "bench", "revision": 1, "lease_ms": 10000})
		if err != nil {
			return err
		}
		req, err := http.NewRequest(http.MethodPut, "http://"+p.admin+"/v1/routes/bench", bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+adminToken)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return fmt.Errorf("set the route: %w", err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("set the route: %s", resp.Status)
		}
		return nil
	}
	if err := put(); err != nil {
		return err
	}
	go func() {
		every := time.NewTicker(time.Second)
		defer every.Stop()
		for {
			select {
			case <-stop:
				return
			case <-every.C:
				_ = put() // the lease outlasts some failures
			}
		}
	}()
	return nil
}
