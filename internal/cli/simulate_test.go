package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aviary-rollouts/aviary/rollout"
)

const simulatedRollout = `
agent: support-agent
stable: v41
canary: v42
canary_stages:
  - {name: few, weight: 0.05, duration: 2h, min_requests: 50}
  - {name: half, weight: 0.5, duration: 12h, approval: required}
  - {name: all, weight: 1.0}
`

// simulateWith runs starter simulate on a rollout file.
func simulateWith(t *testing.T, columns int, args ...string) ran {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rollout.yaml")
	if err := os.WriteFile(file, []byte(simulatedRollout), 0o600); err != nil {
		t.Fatal(err)
	}
	screen := func(p *Process) {
		p.Terminal = func() (int, int, bool) { return columns, 40, columns > 0 }
		p.Env = append(p.Env, "NO_COLOR=1")
	}
	return command(t.Context(), &fake{}, &script{now: noon}, screen, append([]string{"simulate", file}, args...)...)
}

func TestSimulate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		columns int
		args    string
		code    int
	}{
		{"simulate_promoted", 100, "", ExitDone},
		{"simulate_rolled_back", 80, "--regression error_rate=3x@3h --rps 20 --diurnal 0.5 --base error_rate=0.02", ExitTakenBack},
		{"simulate_aborted", 0, "--signal pause@1h --signal abort@2h", ExitTakenBack},
		{"simulate_waits", 80, "--approve-after -1s", ExitFailed},
		{"simulate_runs", 80, "--runs 4 --regression error_rate=1.5x", ExitDone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := simulateWith(t, tt.columns, strings.Fields(tt.args)...)
			if got.code != tt.code {
				t.Errorf("exit code %d, want %d: %s", got.code, tt.code, got.err)
			}
			golden(t, tt.name, got.out)
			for _, line := range strings.Split(got.out, "\n") {
				if tt.columns > 0 && width(line) > tt.columns {
					t.Errorf("%d columns: %s", width(line), line)
				}
			}
		})
	}
}

func TestSimulateAsJSON(t *testing.T) {
	t.Parallel()
	got := simulateWith(t, 0, "--regression", "task_completion_rate=3x", "-o", "json")
	var s simulated
	if err := json.Unmarshal([]byte(got.out), &s); err != nil || got.code != ExitTakenBack {
		t.Fatalf("exit code %d, %v: %s", got.code, err, got.err)
	}
	if s.Status.Phase != rollout.RolledBack || s.Delay == nil || s.Delay.Std() <= 0 || s.Excess["task_completion_rate"] < 1 || len(s.Decisions) < 4 {
		t.Errorf("%+v", s)
	}
}

func TestSimulateRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, args, want string }{
		{"a metric of another rollout", "--regression cost=2x", `--regression "cost" is no metric that this rollout asks about: want one of error_rate`},
		{"no traffic", "--rps 0.0", "--rps 0: want requests a second above 0"},
		{"no run", "--runs 0", "--runs 0: want 1 to 10000"},
		{"an unknown flag", "--regresion x", "unknown flag"},
		{"a missing file", "--agent x missing.yaml", "want one FILE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := simulateWith(t, 0, strings.Fields(tt.args)...)
			if got.code != ExitUsage || !strings.Contains(got.err, tt.want) || got.out != "" {
				t.Errorf("exit code %d, stdout %q, stderr %q, want %q", got.code, got.out, got.err, tt.want)
			}
		})
	}
	got := command(t.Context(), &fake{}, &script{now: noon}, nil, "simulate", "missing.yaml")
	if got.code != ExitUsage || !strings.Contains(got.err, "missing.yaml") {
		t.Errorf("exit code %d: %s", got.code, got.err)
	}
}
