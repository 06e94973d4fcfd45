package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// asDevstack makes the test binary behave as the command itself, so that tests see real processes, signals and exit codes.
const asDevstack = "DEVSTACK_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asDevstack) != "" {
		main()
	}
	os.Exit(m.Run())
}

// process is a devstack in a process of its own.
type process struct {
	addresses
	cmd    *exec.Cmd
	stdout lockedBuffer
	stderr lockedBuffer
	exited chan struct{}
}

// lockedBuffer is a buffer that is written by a process while a test reads it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// launch starts a devstack with the flags and does not wait for it.
func launch(t *testing.T, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(exe, args...), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asDevstack+"=1")
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("devstack %q\nstdout:\n%s\nstderr:\n%s", args, p.stdout.String(), p.stderr.String())
		}
	})
	return p
}

// boot starts a devstack on free ports and waits until it is ready.
func boot(t *testing.T, args ...string) *process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "addr.json")
	p := launch(t, append([]string{"--port", "0", "--ui-port", "0", "--addr-file", file}, args...)...)
	eventually(t, 60*time.Second, func() error {
		select {
		case <-p.exited:
			t.Fatalf("devstack %q ended before it was ready: %v", args, p.cmd.ProcessState)
		default:
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return json.Unmarshal(data, &p.addresses)
	})
	return p
}

// end waits for the process to exit by itself and returns its exit code.
func (p *process) end(t *testing.T, within time.Duration) int {
	t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		t.Fatalf("still running after %s", within)
		return -1
	}
}

// terminate sends the signal and checks that the process ends well and soon.
func (p *process) terminate(t *testing.T, sig os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if code := p.end(t, 5*time.Second); code != exitOK {
		t.Fatalf("exit code after %v: %d, want %d", sig, code, exitOK)
	}
}

func (p *process) dial(t *testing.T) client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{HostPort: p.Frontend, Logger: quietLogger{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// eventually polls until try succeeds, and fails the test with its last error.
func eventually(t *testing.T, within time.Duration, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := poll(ctx, try); err != nil {
		t.Fatal(err)
	}
}

// quietLogger drops what the SDK says; a failing test has the server's side of it.
type quietLogger struct{}

func (quietLogger) Debug(string, ...any) {}
func (quietLogger) Info(string, ...any)  {}
func (quietLogger) Warn(string, ...any)  {}
func (quietLogger) Error(string, ...any) {}

// echo waits for a signal and returns what came with it.
func echo(ctx workflow.Context) (string, error) {
	var got string
	workflow.GetSignalChannel(ctx, "say").Receive(ctx, &got)
	return got, nil
}

func startEcho(t *testing.T, c client.Client, id string) client.WorkflowRun {
	t.Helper()
	run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: id, TaskQueue: "test",
		TypedSearchAttributes: temporal.NewSearchAttributes(
			temporal.NewSearchAttributeKeyKeyword("CanaryAgent").ValueSet("support-agent"),
			temporal.NewSearchAttributeKeyKeyword("CanaryPhase").ValueSet("observing"),
			temporal.NewSearchAttributeKeyFloat64("CanaryWeight").ValueSet(0.05),
		),
	}, echo)
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func startWorker(t *testing.T, c client.Client) worker.Worker {
	t.Helper()
	w := worker.New(c, "test", worker.Options{})
	w.RegisterWorkflow(echo)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	return w
}

// finishEcho signals the workflow and checks that it returns the signal's content.
func finishEcho(t *testing.T, c client.Client, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := c.SignalWorkflow(ctx, id, "", "say", "hello"); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := c.GetWorkflow(ctx, id, "").Get(ctx, &got); err != nil {
		t.Fatal(err)
	}
	if got != "hello" {
		t.Fatalf("workflow returned %q, want %q", got, "hello")
	}
}

// awaitListed waits until the search by attributes finds one workflow, and says how long it took.
func awaitListed(t *testing.T, c client.Client, within time.Duration) {
	t.Helper()
	start := time.Now()
	query := `CanaryAgent = "support-agent" AND CanaryPhase = "observing" AND CanaryWeight = 0.05`
	eventually(t, within, func() error {
		resp, err := c.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: query})
		if err != nil {
			return err
		}
		if n := len(resp.GetExecutions()); n != 1 {
			return errors.New("not listed yet")
		}
		return nil
	})
	t.Logf("listed after %s", time.Since(start))
}

func TestServesWorkflowsAndUI(t *testing.T) {
	t.Parallel()
	p := boot(t)
	c := p.dial(t)
	w := startWorker(t, c)
	startEcho(t, c, "one")
	awaitListed(t, c, 2*time.Second)
	finishEcho(t, c, "one")

	if body := get(t, p.UI+"/", "text/html"); !strings.Contains(body, "<html") {
		t.Errorf("the UI's first page is not HTML: %.200s", body)
	}
	if body := get(t, p.UI+"/api/v1/namespaces", "application/json"); !strings.Contains(body, `"default"`) {
		t.Errorf("the UI's API does not list the namespace: %.200s", body)
	}
	for _, want := range []string{p.Frontend, p.UI, "default", "in memory"} {
		if !strings.Contains(p.stdout.String(), want) {
			t.Errorf("stdout %q does not name %q", p.stdout.String(), want)
		}
	}

	// The worker still polls while the server stops, as it does when a stack is stopped under a running system.
	start := time.Now()
	p.terminate(t, syscall.SIGTERM)
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("stopping took %s, want at most 3s", took)
	}
	if msg := p.stderr.String(); msg != "" {
		t.Errorf("stderr of a good run: %q, want nothing", msg)
	}
	w.Stop()
}

func get(t *testing.T, url, contentType string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(got, contentType) {
		t.Fatalf("GET %s: %s, %s; want 200 and %s", url, resp.Status, got, contentType)
	}
	return string(body)
}

func TestHeadless(t *testing.T) {
	t.Parallel()
	p := boot(t, "--headless")
	if p.UI != "" {
		t.Errorf("UI address %q, want none", p.UI)
	}
	p.dial(t)
	p.terminate(t, os.Interrupt)
}

func TestStateSurvivesRestart(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		end  func(*testing.T, *process)
	}{
		{"stopped", func(t *testing.T, p *process) { p.terminate(t, os.Interrupt) }},
		{"killed", func(t *testing.T, p *process) {
			if err := p.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			p.end(t, 5*time.Second)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			db := filepath.Join(t.TempDir(), "state.db")
			first := boot(t, "--headless", "--db-filename", db)
			run := startEcho(t, first.dial(t), "kept")
			tt.end(t, first)

			second := boot(t, "--headless", "--db-filename", db)
			c := second.dial(t)
			defer startWorker(t, c).Stop()
			awaitListed(t, c, 10*time.Second)
			finishEcho(t, c, "kept")
			desc, err := c.DescribeWorkflowExecution(t.Context(), "kept", "")
			if err != nil {
				t.Fatal(err)
			}
			if got := desc.GetWorkflowExecutionInfo().GetExecution().GetRunId(); got != run.GetRunID() {
				t.Errorf("run %s, want %s", got, run.GetRunID())
			}
			second.terminate(t, syscall.SIGTERM)
		})
	}
}

// A stopped stack leaves all of its state in the one file it was given.
func TestOneFileHoldsTheState(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := filepath.Join(dir, "state.db")
	first := boot(t, "--headless", "--db-filename", db)
	startEcho(t, first.dial(t), "kept")
	first.terminate(t, syscall.SIGTERM)

	data, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(t.TempDir(), "moved.db")
	if err := os.WriteFile(moved, data, 0o600); err != nil {
		t.Fatal(err)
	}
	second := boot(t, "--headless", "--db-filename", moved)
	c := second.dial(t)
	defer startWorker(t, c).Stop()
	finishEcho(t, c, "kept")
	if _, err := os.Stat(db + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s.new is left behind: %v", db, err)
	}
}
