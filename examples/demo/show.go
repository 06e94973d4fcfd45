package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/aviary-rollouts/aviary/examples"
	"github.com/aviary-rollouts/aviary/internal/stack"
)

// act is one rollout of the show: the canary, what is told beforehand and the exit code of `starter start --watch` it must end with.
type act struct {
	canary, stable, story string
	exit                  int
	outcome               string
}

func acts() []act {
	return []act{
		{"v42", "v41", "v42 fails half as often as v41. It should be promoted.", 0, "promoted"},
		{"v43", "v42", "v43 leaves far more tasks undone, and now and then says what it must not. It should be taken back.", 3, "rolled back"},
	}
}

// show runs the whole demo. Everything it started has stopped when it returns.
func show(ctx context.Context, out io.Writer, keep bool) (err error) {
	dir, err := os.MkdirTemp("", "aviary-demo-")
	if err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	printf := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format, args...) }
	printf("Starting Temporal, the gateway, the worker, three versions of %s and its users …\n", agentName)
	w, err := start(ctx, worldOptions{dir: dir, rps: 250})
	if err != nil {
		if ctx.Err() != nil {
			return os.RemoveAll(dir)
		}
		return fmt.Errorf("%w\nlogs are in %s", err, dir)
	}
	defer func() {
		stopped := w.stop()
		if ctx.Err() != nil { // Ctrl-C: what it interrupted is no failure
			err = nil
		}
		if err = errors.Join(err, stopped); err == nil {
			err = os.RemoveAll(dir)
		}
	}()
	printf("  Temporal UI   %s\n  agent         http://%s/agents/%s/chat\n  logs          %s\n", w.devstack.UI, w.gateway.Proxy, agentName, dir)

	file := filepath.Join(dir, "quick.yaml")
	text, err := examples.Files.ReadFile("quick.yaml")
	if err != nil {
		return fmt.Errorf("read the rollout file: %w", err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return fmt.Errorf("write the rollout file: %w", err)
	}
	for i, a := range acts() {
		printf("\n%d. %s\n   $ starter start quick.yaml --stable %s --canary %s --watch\n", i+1, a.story, a.stable, a.canary)
		if err := w.play(ctx, out, file, a); err != nil {
			return fmt.Errorf("%w\nlogs are in %s", err, dir)
		}
	}
	r := w.traffic.Report()
	printf("\nMeanwhile the users took %d turns; %d failed, by version: %v.\n", r.Turns, r.Failed, r.Versions)
	printf("\n$ starter status %s\n", agentName)
	if _, err := w.starter(ctx, out, "status", agentName); err != nil {
		return err
	}
	printf("\nBoth went as they should: v42 promoted, v43 taken back.\n")
	w.invite(ctx, out, keep)
	return nil
}

// play runs one rollout and checks how it ends.
func (w *world) play(ctx context.Context, out io.Writer, file string, a act) error {
	began := time.Now()
	code, err := w.starter(ctx, out, "start", file, "--agent", agentName, "--stable", a.stable, "--canary", a.canary, "--watch")
	if err != nil {
		return err
	}
	if code != a.exit {
		return fmt.Errorf("canary %s should be %s (exit code %d of starter), but it was %d", a.canary, a.outcome, a.exit, code)
	}
	_, _ = fmt.Fprintf(out, "   → %s was %s after %s\n", a.canary, a.outcome, time.Since(began).Round(time.Second))
	return nil
}

// starter runs the command line and returns its exit code; its output is indented.
func (w *world) starter(ctx context.Context, out io.Writer, args ...string) (int, error) {
	bin, err := stack.Binary("starter")
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = append(os.Environ(), w.temporalEnv(), "AVIARY_UI="+w.devstack.UI)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return 0, fmt.Errorf("run starter: %w", err)
	}
	cmd.Stderr = cmd.Stdout
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 3 * time.Second
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("run starter: %w", err)
	}
	lines := bufio.NewScanner(pipe)
	for lines.Scan() {
		_, _ = fmt.Fprintln(out, "   "+lines.Text())
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 0, fmt.Errorf("run starter %s: %w", args[0], err)
	}
	return 0, nil
}

// invite says what to look at, and stays up if asked to.
func (w *world) invite(ctx context.Context, out io.Writer, keep bool) {
	if !keep {
		_, _ = fmt.Fprintf(out, `
Everything is stopped now. To look around yourself:
  make dev                                     stays up; the Temporal UI is at http://127.0.0.1:8233
  bin/starter start examples/quick.yaml --watch
  bin/starter decisions %s          every decision with its evidence
`, agentName)
		return
	}
	_, _ = fmt.Fprintf(out, `
Look around until Ctrl-C:
  history       %s/namespaces/default/workflows/canary%%2F%s
  status        TEMPORAL_ADDRESS=%s bin/starter status %s
  decisions     TEMPORAL_ADDRESS=%s bin/starter decisions %s
`, w.devstack.UI, agentName, w.devstack.Frontend, agentName, w.devstack.Frontend, agentName)
	<-ctx.Done()
}
