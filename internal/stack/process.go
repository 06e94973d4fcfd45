// Package stack runs Aviary's built binaries as processes on one machine: for the demo, for development and for
// the end-to-end tests. What it starts, it stops.
package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a process may take to stop by itself before it is killed.
const stopGrace = 25 * time.Second

// Process is a running binary. Its output goes to a log file.
type Process struct {
	Name string
	Log  string // path of the log file
	cmd  *exec.Cmd
	done chan struct{}

	mu  sync.Mutex
	err error
}

// Run starts a binary with its output in logPath, which is appended to. The process dies with this one.
func Run(name, logPath string, env []string, bin string, args ...string) (*Process, error) {
	return run(name, logPath, env, attributes(), bin, args)
}

// RunAs is Run as another user, which only root may: for servers that refuse to run as root.
func RunAs(user *syscall.Credential, name, logPath string, env []string, bin string, args ...string) (*Process, error) {
	as := attributes()
	as.Credential = user
	return run(name, logPath, env, as, bin, args)
}

func run(name, logPath string, env []string, as *syscall.SysProcAttr, bin string, args []string) (*Process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer log.Close()
	cmd := exec.Command(bin, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), env...)
	// An own process group keeps Ctrl-C for the parent, which then stops its children in order.
	cmd.SysProcAttr = as
	p := &Process{Name: name, Log: logPath, cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// run starts the process and waits for its end on one thread: a parent-death signal is bound to the thread that started the child.
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	err = p.cmd.Wait()
	p.mu.Lock()
	p.err = err
	p.mu.Unlock()
	close(p.done)
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how the process ended: nil while it runs and for exit code 0.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Kill ends the process at once, as kill -9 does, and waits for it.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Suspend stops the process from running without ending it, as kill -STOP does; Continue lets it go on.
func (p *Process) Suspend() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue lets a suspended process go on.
func (p *Process) Continue() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// Stop asks the process to end and waits; past a grace period it is killed, which is an error.
func (p *Process) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return p.Err()
	case <-time.After(stopGrace):
		p.Kill()
		return fmt.Errorf("%s did not stop within %s and was killed; its log is %s", p.Name, stopGrace, p.Log)
	}
}

// failed describes why a process that should be running is not.
func (p *Process) failed() error {
	err := p.Err()
	if err == nil {
		err = errors.New("exit code 0")
	}
	return fmt.Errorf("%s ended: %w\n%s", p.Name, err, tail(p.Log, 15))
}

func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// await reads the JSON that the process writes into path once it is ready.
func (p *Process) await(ctx context.Context, path string, into any) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		b, err := os.ReadFile(path)
		if err == nil && json.Unmarshal(b, into) == nil {
			return nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("read the addresses of %s: %w", p.Name, err)
		}
		select {
		case <-p.done:
			return p.failed()
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.Name, ctx.Err(), tail(p.Log, 15))
		case <-tick.C:
		}
	}
}

// Binary is the path of a built binary: in $AVIARY_BIN, else beside the running one, else in ./bin.
func Binary(name string) (string, error) {
	var dirs []string
	if dir := os.Getenv("AVIARY_BIN"); dir != "" {
		dirs = append(dirs, dir)
	}
	if self, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Dir(self))
	}
	dirs = append(dirs, "bin")
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return filepath.Abs(path)
		}
	}
	return "", fmt.Errorf("no binary %s in %s: run `make build`", name, strings.Join(dirs, ", "))
}
