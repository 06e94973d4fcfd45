package cli

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/analysis/plan"
	"github.com/aviary-rollouts/aviary/config"
)

const plannedRollout = `
agent: support-agent
stable: v41
canary: v42
criticality: conversational
analysis: {settle: 1m, overdispersion: {error_rate: 2}}
rollback_criteria: {max_error_increase: 0.10, max_latency_increase: 0.50, max_cost_increase: 0.20}
promotion_criteria: {max_completion_regression: 0.02}
canary_stages:
  - {name: first-look, weight: 0.02, duration: 2h, min_requests: 50}
  - {name: low, weight: 0.1, duration: 4h, min_requests: 50000, checks: ["error_rate_increase < 0.05"]}
  - {name: half, weight: 0.5, duration: 24h, approval: required, checks: ["task_completion_drop < 0.02", "error_rate < 0.03"]}
  - {name: all, weight: 1.0}
`

// drawingBoard is a folder with a rollout file and a worker's settings.
func drawingBoard(t *testing.T) (in func(name string) string) {
	t.Helper()
	dir := t.TempDir()
	in = func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{
		"rollout.yaml": plannedRollout, "typo.yaml": strings.Replace(plannedRollout, "weight: 0.1,", "wieght: 0.1,", 1),
		"raw.yaml":    strings.NewReplacer("settle: 1m, overdispersion: {error_rate: 2}", "method: threshold").Replace(plannedRollout),
		"proof.yaml":  strings.NewReplacer("settle: 1m,", "advance: proof,").Replace(plannedRollout),
		"worker.yaml": "traffic:\n  default: {driver: router, gateways: [\"http://gateway:9901\"], token_file: token}\nmetrics:\n  default: {provider: router, gateways: [\"http://gateway:9901\"], token_file: token}\n",
		"token":       "hush\n",
	} {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return in
}

func TestPlan(t *testing.T) {
	t.Parallel()
	in := drawingBoard(t)
	for name, args := range map[string]string{
		"plan":       in("rollout.yaml") + " --rps 20 --base error_rate=0.02 --base cost_per_task=0.04,spread=1.2,share=0.5 --base safety_violations=0.000001",
		"plan_short": in("rollout.yaml") + " --rps 0.01",
		"plan_raw":   in("raw.yaml") + " --rps 20",
		"plan_proof": in("proof.yaml") + " --rps 20",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := command(t.Context(), &fake{}, &script{now: noon}, nil, append([]string{"plan"}, strings.Fields(args)...)...)
			if got.code != ExitDone || got.err != "" {
				t.Fatalf("exit code %d: %s", got.code, got.err)
			}
			for _, line := range strings.Split(got.out, "\n") {
				if width(line) > reportWidth {
					t.Errorf("%d columns: %s", width(line), line)
				}
			}
			golden(t, name, got.out)
		})
	}
}

func TestPlanOnTerminals(t *testing.T) {
	t.Parallel()
	in := drawingBoard(t)
	for _, columns := range []int{40, 80, 200} {
		got := command(t.Context(), &fake{}, &script{now: noon}, func(p *Process) {
			p.Terminal = func() (int, int, bool) { return columns, 24, true }
		}, "plan", in("rollout.yaml"), "--rps", "20")
		if got.code != ExitDone || !strings.Contains(got.out, "\x1b[") {
			t.Errorf("exit code %d, want colours: %q", got.code, got.out)
		}
		plain := 0
		for _, line := range strings.Split(got.out, "\n") {
			if !strings.Contains(line, "\x1b[") && width(line) > min(columns, reportWidth) {
				plain++
			}
		}
		if plain > 0 && columns >= 80 {
			t.Errorf("%d lines are wider than %d columns:\n%s", plain, columns, got.out)
		}
	}
}

func TestPlanAsJSONAndYAML(t *testing.T) {
	t.Parallel()
	in := drawingBoard(t)
	for _, form := range []string{"json", "yaml"} {
		got := command(t.Context(), &fake{}, &script{now: noon}, nil, "plan", in("rollout.yaml"), "--rps", "20", "-o", form)
		if got.code != ExitDone {
			t.Fatalf("exit code %d: %s", got.code, got.err)
		}
		if form == "yaml" {
			has(t, "stdout", got.out, "decides: true", "name: first-look", "because: min_requests")
			continue
		}
		var p plan.Plan
		if err := json.Unmarshal([]byte(got.out), &p); err != nil {
			t.Fatal(err)
		}
		if !p.Decides || len(p.Stages) != 4 || p.Stages[1].Because != "min_requests" || p.RPS != 20 || p.Alpha != 0.01 || p.Approvals != 1 {
			t.Errorf("plan %+v", p)
		}
	}
}

func TestPlanStrict(t *testing.T) {
	t.Parallel()
	in := drawingBoard(t)
	got := command(t.Context(), &fake{}, &script{now: noon}, nil, "plan", in("rollout.yaml"), "--rps", "0.01", "--strict")
	if got.code != ExitFailed {
		t.Errorf("exit code %d, want %d", got.code, ExitFailed)
	}
	has(t, "stdout", got.out, "Decides: no.")
	has(t, "stderr", got.err, "--strict", "can't decide", "stage low would take")
	got = command(t.Context(), &fake{}, &script{now: noon}, nil, "plan", in("rollout.yaml"), "--rps", "100", "--strict")
	if got.code != ExitDone || !strings.Contains(got.out, "Decides: yes.") {
		t.Errorf("exit code %d, want %d\n%s", got.code, ExitDone, got.out)
	}
}

func TestPlanRefuses(t *testing.T) {
	t.Parallel()
	in := drawingBoard(t)
	file := in("rollout.yaml")
	for _, tt := range []struct {
		name, args string
		want       []string
	}{
		{"no traffic", file, []string{"how much traffic is there?", "--rps NUMBER", "--prometheus URL", "--worker FILE"}},
		{"zero traffic", file + " --rps 0", []string{"--rps 0", "above 0"}},
		{"less than nothing", file + " --rps -3", []string{"--rps -3"}},
		{"no number", file + " --rps NaN", []string{"--rps NaN"}},
		{"absurd traffic", file + " --rps 1e300", []string{"--rps 1e+300", "up to 1e+09"}},
		{"not a number", file + " --rps many", []string{"many"}},
		{"a typo", in("typo.yaml") + " --rps 20", []string{"typo.yaml:11", `unknown key "wieght"`, "weight"}},
		{"no file", in("none.yaml") + " --rps 20", []string{"none.yaml", "no such file"}},
		{"no rollout", "--rps 20", []string{"want one FILE"}},
		{"two sources", file + " --worker a --prometheus http://b", []string{"prometheus worker"}},
		{"an unknown metric", file + " --rps 20 --base eror_rate=0.1", []string{`"eror_rate" is not tested`, "error_rate", "cost_per_task"}},
		{"a percentage", file + " --rps 20 --base error_rate=2", []string{"--base error_rate=2", "fraction from 0 to 1"}},
		{"no value", file + " --rps 20 --base error_rate", []string{"want METRIC=VALUE"}},
		{"no number as a value", file + " --rps 20 --base error_rate=2%", []string{`"2%" is not a number`}},
		{"an unknown part", file + " --rps 20 --base error_rate=0.02,speed=1", []string{`"speed=1"`}},
		{"a share of nothing", file + " --rps 20 --base error_rate=0.02,share=0", []string{"share 0"}},
		{"one twice", file + " --rps 20 --base error_rate=0.02 --base error_rate=0.03", []string{"error_rate is there twice"}},
		{"two mistakes", file + " --rps 20 --base error_rate=7 --base x=1", []string{"error_rate=7", `"x" is not tested`}},
		{"a short window", file + " --worker w --window 1s", []string{"--window 1s"}},
		{"no settings", file + " --worker " + in("none.yaml"), []string{"none.yaml"}},
		{"no target", file + " --worker " + in("worker.yaml") + " --target prom", []string{`no metrics target "prom"`}},
		{"a secret on the command line", file + " --prometheus http://ann:hush@prom", []string{"no credentials in the URL"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := command(t.Context(), &fake{}, &script{now: noon}, nil, append([]string{"plan"}, strings.Fields(tt.args)...)...)
			if got.code != ExitUsage || got.out != "" {
				t.Errorf("exit code %d, want %d\n%s", got.code, ExitUsage, got.out)
			}
			has(t, "stderr", got.err, tt.want...)
			if strings.Contains(got.err, "hush") {
				t.Errorf("it tells the secret: %s", got.err)
			}
		})
	}
}

// steady are polls of so many requests each, of which one in twenty fails.
func steady(n float64) []analysis.Poll {
	var out []analysis.Poll
	for k := range 60 {
		out = append(out, analysis.Poll{
			Number: int64(k), Requests: analysis.Requests{Stable: n},
			Samples: map[string]analysis.Sample{"error_rate": {Stable: analysis.Counts{N: n, X: n / 20}}},
		})
	}
	return out
}

// reading plans with what a source answers, and tells what it was asked.
func reading(t *testing.T, in func(string) string, answer []analysis.Poll, err error, args ...string) (got ran, asked PresentQuery) {
	t.Helper()
	got = command(t.Context(), &fake{}, &script{now: noon}, func(p *Process) {
		p.Present = func(_ context.Context, q PresentQuery) ([]analysis.Poll, string, error) {
			asked = q
			return answer, "60 polls", err
		}
	}, append([]string{"plan", in("rollout.yaml"), "--worker", in("worker.yaml"), "--window", "10m"}, args...)...)
	return got, asked
}

func TestPlanReadsTheSource(t *testing.T) {
	t.Parallel()
	in := drawingBoard(t)
	got, asked := reading(t, in, steady(300), nil)
	if got.code != ExitDone {
		t.Fatalf("exit code %d: %s", got.code, got.err)
	}
	has(t, "stderr", got.err, "counting what support-agent does for 10m")
	has(t, "stdout", got.out, "at 30 requests/s", "cost_per_task: the source has no numbers of it")
	if !strings.Contains(got.out, "error_rate            5%     ·       1            2\n") {
		t.Errorf("want the error rate that was read:\n%s", got.out)
	}
	if s := asked.Target.Token.Reveal(); s != "hush" {
		t.Errorf("token %q, want that of the settings", s)
	}
	var names []string
	for _, m := range asked.Metrics {
		names = append(names, m.Name)
	}
	asked.Target, asked.Metrics = config.MetricsTarget{}, nil
	want := PresentQuery{Agent: "support-agent", Stable: "v41", Canary: "v42", Window: 10 * time.Minute, Step: 10 * time.Second, Now: noon}
	if diff := cmp.Diff(want, asked, cmp.AllowUnexported(config.Secret{})); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"error_rate", "task_completion_rate", "p95_latency", "safety_violations", "cost_per_task"}, names); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// What is given is stronger than what is read, and there may be nothing to read.
func TestPlanWithoutTraffic(t *testing.T) {
	t.Parallel()
	in := drawingBoard(t)
	got, _ := reading(t, in, steady(300), nil, "--rps", "7", "--base", "error_rate=0.2")
	has(t, "stdout", got.out, "at 7 requests/s", "error_rate            20%")
	got, _ = reading(t, in, steady(0), nil)
	if got.code != ExitFailed {
		t.Errorf("exit code %d, want %d", got.code, ExitFailed)
	}
	has(t, "stderr", got.err, "there was no traffic", "--rps", "--window")
	got, _ = reading(t, in, steady(0), nil, "--rps", "7")
	has(t, "stdout", got.out, "had no traffic in 10m", "at 7 requests/s")
	got, _ = reading(t, in, nil, errors.New("the source is gone"))
	if got.code != ExitFailed {
		t.Errorf("exit code %d, want %d", got.code, ExitFailed)
	}
	has(t, "stderr", got.err, "read what support-agent does: the source is gone")
}
