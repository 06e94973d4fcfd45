package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/analysis/calibration"
	"github.com/aviary-rollouts/aviary/config"
)

const calibratedRollout = `
agent: support-agent
stable: v41
canary: v42
rollback_criteria: {max_error_increase: 0.10, max_latency_increase: null, max_completion_drop: null}
canary_stages:
  - {name: initial, weight: 0.05, duration: 2h, min_requests: 50}
  - {name: half, weight: 0.5, duration: 2h}
`

// workshop is a folder with a rollout file, a file of polls and a worker's settings.
func workshop(t *testing.T) (dir string, in func(name string) string) {
	t.Helper()
	dir = t.TempDir()
	in = func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{
		"rollout.yaml": calibratedRollout, "polls.csv": polls(), "bad.csv": "time,metric,n,x\n0,error_rate,1,2\n",
		"worker.yaml": "traffic:\n  default: {driver: router, gateways: [\"http://gateway:9901\"], token_file: token}\nmetrics:\n  prom: {provider: prometheus, address: \"http://prom:9090\", token_file: token}\n",
		"token":       "hush\n",
	} {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, in
}

// polls are two days of one version whose errors come in pairs and triples.
func polls() string {
	var b strings.Builder
	rng := rand.New(rand.NewPCG(1, 1))
	b.WriteString("time,unit,metric,n,x\n")
	for i := range 2 * 24 * 60 {
		for pod := range 2 {
			n, x := 250+rng.IntN(100), 0
			for range 2 {
				if rng.Float64() < 0.5 {
					x += 2 + rng.IntN(2)
				}
			}
			fmt.Fprintf(&b, "%d,pod-%d,error_rate,%d,%d\n", 1772366400+60*i, pod, n, x)
		}
	}
	return b.String()
}

func TestCalibrateFromAFile(t *testing.T) {
	t.Parallel()
	_, in := workshop(t)
	got := command(t.Context(), &fake{}, &script{now: noon}, nil, "calibrate", in("rollout.yaml"), "--csv", in("polls.csv"), "--out", in("calibration.yaml"))
	if got.code != ExitDone || got.err != "" {
		t.Fatalf("exit code %d: %s", got.code, got.err)
	}
	has(t, "stdout", got.out, "support-agent v41, 2d from 2026-03-01", "of 2 instances", "error_rate", "raw threshold rule", "×1.2", "×5", "With these settings the rollout can", "The settings are in")
	for _, line := range strings.Split(got.out, "\n") {
		if width(line) > reportWidth && !strings.HasPrefix(line, "The settings are in") {
			t.Errorf("%d columns: %s", width(line), line)
		}
	}
	// What it writes can be pasted.
	fragment, err := os.ReadFile(in("calibration.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	spec, err := config.Rollout("pasted.yaml", append([]byte(calibratedRollout), fragment...), config.Overrides{})
	if err != nil {
		t.Fatalf("%v\n%s", err, fragment)
	}
	if phi := spec.Analysis.Overdispersion["error_rate"]; phi < 2 || phi > 4 {
		t.Errorf("overdispersion %v of pairs and triples, want 2 to 4", phi)
	}
}

// TestCalibrateDestroysNothing: what is there already stays, unless it is said, and what is read stays in any case.
func TestCalibrateDestroysNothing(t *testing.T) {
	t.Parallel()
	dir, in := workshop(t)
	if err := os.Link(in("polls.csv"), in("other-name.csv")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in("old.yaml"), []byte("precious\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func() map[string]string {
		out := map[string]string{}
		for _, name := range []string{"rollout.yaml", "polls.csv", "old.yaml"} {
			b, err := os.ReadFile(in(name))
			if err != nil {
				t.Fatal(err)
			}
			out[name] = string(b)
		}
		return out
	}
	before := read()
	for _, c := range []struct {
		out, says string
		force     bool
	}{
		{in("rollout.yaml"), "which is read", false}, {in("rollout.yaml"), "which is read", true}, {filepath.Join(dir, ".", "polls.csv"), "which is read", true},
		{in("other-name.csv"), "which is read", true}, {in("old.yaml"), "--force", false},
	} {
		args := []string{"calibrate", in("rollout.yaml"), "--csv", in("polls.csv"), "--out", c.out}
		if c.force {
			args = append(args, "--force")
		}
		got := command(t.Context(), &fake{}, &script{now: noon}, nil, args...)
		if got.code != ExitUsage || !strings.Contains(got.err, c.says) {
			t.Errorf("--out %s: exit code %d, %s", c.out, got.code, got.err)
		}
	}
	if diff := cmp.Diff(before, read()); diff != "" {
		t.Errorf("files (-before +after):\n%s", diff)
	}
	got := command(t.Context(), &fake{}, &script{now: noon}, nil, "calibrate", in("rollout.yaml"), "--csv", in("polls.csv"), "--out", in("old.yaml"), "--force")
	if after := read()["old.yaml"]; got.code != ExitDone || !strings.HasPrefix(after, "analysis:") {
		t.Errorf("with --force: exit code %d, %s\n%s", got.code, got.err, after)
	}
}

// TestCalibrateAThinHistory: where stable has hardly any events nothing is claimed, in any form of output.
func TestCalibrateAThinHistory(t *testing.T) {
	t.Parallel()
	_, in := workshop(t)
	var b strings.Builder
	b.WriteString("time,metric,n,x\n")
	for i := range 600 {
		fmt.Fprintf(&b, "%d,error_rate,20,%d\n", 1772366400+60*i, i%60/59)
	}
	if err := os.WriteFile(in("thin.csv"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{"table", "json", "yaml"} {
		got := command(t.Context(), &fake{}, &script{now: noon}, nil, "calibrate", in("rollout.yaml"), "--csv", in("thin.csv"), "-o", form)
		if got.code != ExitDone || strings.Contains(got.out, "Inf") || strings.Contains(got.out, "nothing to set") {
			t.Errorf("%s: exit code %d: %s\n%s", form, got.code, got.err, got.out)
		}
		if form == "table" {
			has(t, "stdout", got.out, "with so few events that any change happens")
		}
	}
	fragment, err := fragmentOf(&calibration.Result{Metrics: []calibration.Metric{{Name: "error_rate", Tested: true, Used: 1}, {Name: "safety_violations"}}})
	if err != nil || !strings.Contains(string(fragment), "too thin to tell what chance does to error_rate.") {
		t.Errorf("settings %q, %v; want them to say that nothing is known", fragment, err)
	}
}

func TestCalibrateAsJSON(t *testing.T) {
	t.Parallel()
	_, in := workshop(t)
	got := command(t.Context(), &fake{}, &script{now: noon}, nil, "calibrate", in("rollout.yaml"), "--csv", in("polls.csv"), "-o", "json")
	var result calibrated
	if err := json.Unmarshal([]byte(got.out), &result); err != nil || got.code != ExitDone {
		t.Fatalf("exit code %d, %v: %s", got.code, err, got.err)
	}
	if result.Units != 2 || len(result.Metrics) != 2 || len(result.Promises) != 4 || result.Replays.Count != 100 || result.Plan == nil || len(result.Plan.Stages) != 2 {
		t.Errorf("result %+v", result)
	}
}

func TestCalibrateAsksTheSource(t *testing.T) {
	t.Parallel()
	dir, in := workshop(t)
	file := in("rollout.yaml")
	errorRate, _ := analysis.Preset("error_rate")
	safety, _ := analysis.Preset("safety_violations")
	base := PastQuery{
		Agent: "support-agent", Version: "v41", From: noon.Add(-14 * 24 * time.Hour), To: noon, Step: 10 * time.Second,
		Target: config.MetricsTarget{Provider: "prometheus", Address: "http://prom:9090"}, Metrics: []analysis.Metric{errorRate, safety},
	}
	for _, tt := range []struct {
		name   string
		args   string
		env    []string
		secret string
		change func(*PastQuery)
	}{
		{"an address", "--prometheus http://prom:9090", nil, "", func(*PastQuery) {}},
		{"a token", "--prometheus http://prom:9090", []string{promToken + "=hush"}, "hush", func(*PastQuery) {}},
		{"a user", "--prometheus http://prom:9090", []string{promUser + "=ann", promPassword + "=hush"}, "", func(q *PastQuery) { q.Target.Address = "http://ann:hush@prom:9090" }},
		{"a worker's settings", "--worker " + in("worker.yaml") + " --target prom", nil, "hush", func(*PastQuery) {}},
		{"pods and time", "--prometheus http://prom:9090 --unit-label pod --last 36h --until 2026-02-01T00:00:00Z", nil, "", func(q *PastQuery) {
			q.UnitLabel, q.To = "pod", time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
			q.From = q.To.Add(-36 * time.Hour)
		}},
		{"users of another version", "--prometheus http://prom:9090 --user-label user --version v40", nil, "", func(q *PastQuery) {
			q.UnitLabel, q.Users, q.Version = "user", true, "v40"
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var asked PastQuery
			gone := errors.New("the source is gone")
			got := command(t.Context(), &fake{}, &script{now: noon}, func(p *Process) {
				p.Env = append(p.Env, tt.env...)
				p.Past = func(_ context.Context, q PastQuery) (*History, string, error) {
					asked = q
					return nil, "", gone
				}
			}, append([]string{"calibrate", file}, strings.Fields(tt.args)...)...)
			if got.code != ExitFailed || !strings.Contains(got.err, gone.Error()) {
				t.Errorf("exit code %d: %s", got.code, got.err)
			}
			if strings.Contains(got.err+got.out, "hush") {
				t.Errorf("it tells the secret: %s", got.err)
			}
			if s := asked.Target.Token.Reveal(); s != tt.secret {
				t.Errorf("token %q, want %q", s, tt.secret)
			}
			asked.Target.Token = config.Secret{}
			want := base
			tt.change(&want)
			if diff := cmp.Diff(want, asked, cmp.AllowUnexported(config.Secret{})); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "calibration.yaml")); err == nil {
		t.Error("it wrote settings although it failed")
	}
}

func TestCalibrateRefuses(t *testing.T) {
	t.Parallel()
	_, in := workshop(t)
	file := in("rollout.yaml")
	for _, tt := range []struct {
		name, args string
		want       []string
	}{
		{"no source", file, []string{"--prometheus, --worker, --csv"}},
		{"two sources", file + " --csv x --prometheus http://x", []string{"csv prometheus"}},
		{"two kinds of units", file + " --csv x --unit-label a --user-label b", []string{"unit-label user-label"}},
		{"no rollout", "--csv x", []string{"want one FILE"}},
		{"few replays", file + " --csv x --replays 99", []string{"--replays 99", "100 to 10000"}},
		{"no polls", file + " --csv " + in("none.csv"), []string{"none.csv", "no such file"}},
		{"faulty polls", file + " --csv " + in("bad.csv"), []string{"bad.csv:2: x: 2 events of 1 trials"}},
		{"a bad time", file + " --prometheus http://x --last 2w", []string{`--last "2w"`, "14d"}},
		{"a bad end", file + " --prometheus http://x --until monday", []string{`--until "monday"`}},
		{"no URL", file + " --prometheus prom:9090", []string{"--prometheus", "http://prometheus:9090"}},
		{"a secret on the command line", file + " --prometheus http://ann:hush@prom", []string{"no credentials in the URL", promToken}},
		{"no such target", file + " --worker " + in("worker.yaml"), []string{`no metrics target "default"`}},
		{"another time than the polls'", file + " --csv x --last 3d", []string{"--last is for a metrics source"}},
		{"another end than the polls'", file + " --csv x --until yesterday", []string{"--until is for a metrics source"}},
		{"another version than the polls'", file + " --csv x --version v99", []string{"--version is for a metrics source"}},
		{"a label of polls", file + " --csv x --unit-label pod", []string{"--unit-label is for a metrics source"}},
		{"a target of nothing", file + " --csv x --target y", []string{"--target is of --worker"}},
		{"force of nothing", file + " --csv x --force", []string{"--force is for --out"}},
		{"days without end", file + " --prometheus http://x --last 213504d", []string{`--last "213504d"`, "400d"}},
		{"days after hours", file + " --prometheus http://x --last 1h30d", []string{`--last "1h30d"`}},
		{"no settings", file + " --worker " + in("none.yaml"), []string{"none.yaml"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := command(t.Context(), &fake{}, &script{now: noon}, nil, append([]string{"calibrate"}, strings.Fields(tt.args)...)...)
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

func TestCalibrationReport(t *testing.T) {
	t.Parallel()
	_, in := workshop(t)
	spec, err := load(in("rollout.yaml"), config.Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	r := &calibration.Result{
		From: noon, Days: 14, Step: 15, By: calibration.Users, Units: 8123, Traffic: calibration.Traffic{Mean: 10.21, Peak: 15.4, Trough: 5.02},
		Metrics: []calibration.Metric{
			{Name: "error_rate", Base: ptr(0.0101), Trials: 12_350_016, Tested: true, Phi: ptr(9.31), Used: 13.04, Cohort: ptr(0.0312)},
			{Name: "p95_latency", Base: ptr(7.45), Trials: 12_350_016, Tested: true, Phi: ptr(1), Used: 1},
			{Name: "safety_violations", Base: ptr(0.0), Trials: 12_350_016},
			{Name: "user_satisfaction"},
		},
		Replays: calibration.Replays{
			Count: 100, Scale: 1, Rounds: 1, Threshold: 0.97,
			Measured: calibration.Rates{TakenBack: 0.02, AtMost: 0.0616, Doubtful: 0.08}, Used: calibration.Rates{AtMost: 0.0295, Doubtful: 0.03},
		},
		Promises: []calibration.Promise{
			{Metric: "error_rate", Factor: 1.2}, {Metric: "error_rate", Factor: 1.5, Caught: 0.3},
			{Metric: "error_rate", Factor: 2, Caught: 0.8, Median: ptr(36000)}, {Metric: "error_rate", Factor: 5, Caught: 1, Median: ptr(600), P90: ptr(900)},
			{Metric: "p95_latency", Factor: 1.2, Allowed: true}, {Metric: "p95_latency", Factor: 1.5, Allowed: true},
			{Metric: "p95_latency", Factor: 2, Caught: 1, Median: ptr(1200), P90: ptr(2400)}, {Metric: "p95_latency", Factor: 5, Caught: 1, Median: ptr(300), P90: ptr(300)},
		},
		Warnings:       []string{"error_rate_increase < 0.02 is tighter than what chance does to identical versions in stage initial (±6.1 %): 38 of 100 replays ended beyond it: expect held stages"},
		Overdispersion: map[string]float64{"error_rate": 13.04}, CohortSpread: map[string]float64{"error_rate": 0.0312},
	}
	fragment, err := fragmentOf(r)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(Screen{}.calibration(spec, "v41", "2411520 samples of 84 series", r), "\n") + "\n\n" + string(fragment)
	golden(t, "calibration", text)
}

func TestRoundUp(t *testing.T) {
	t.Parallel()
	for x, want := range map[float64]float64{9.31: 9.4, 9.3: 9.3, 1: 1, 1.001: 1.1, 0.0312: 0.032, 13.04: 13.1, 123: 123, 1000: 1000, 0: 0} {
		if got := roundUp(x); got != want {
			t.Errorf("%v rounded up is %v, want %v", x, got, want)
		}
	}
}
